import { describe, expect, it } from 'vitest';
import { parseServeBench, type ServeBenchValues } from '../../../../src/bench/client/options.js';
import { BENCH_SERVE_FLAGS } from '../../../../src/cli/bench-serve-flags.js';
import type { FlagRow } from '../../../../src/cli/flag-row.js';
import { resolveSettings, valuesOf, type ParsedFlags } from '../../../../src/cli/settings.js';

/** The values of a command line. */
function valuesFor(flags: ParsedFlags): ServeBenchValues {
  const sources = { flags, environment: {}, configDir: '/nowhere' };
  return valuesOf(resolveSettings(BENCH_SERVE_FLAGS, sources));
}

const parse = (flags: ParsedFlags) => parseServeBench(valuesFor({ url: 'http://h:1', ...flags }));

describe('parseServeBench', () => {
  it('has the defaults of vLLM', () => {
    expect(parse({})).toMatchObject({
      backend: 'openai',
      endpoint: '/v1/completions',
      requestRate: Infinity,
      burstiness: 1,
      concurrencies: [Infinity],
      readySeconds: 0,
      maxRetries: 0,
      numWarmups: 0,
      goodput: {},
      ignoreEos: true,
      extraBody: {},
      headers: {},
      dataset: {
        name: 'random',
        numPrompts: 1000,
        seed: 0,
        random: { inputLen: 1024, outputLen: 128, rangeRatio: 0, prefixLen: 0 },
        customOutputLen: 256,
        shuffle: true,
        oversample: true,
      },
      document: { isSaved: false, label: 'openai', latencies: ['ttft', 'tpot', 'itl'], percentiles: [99] },
    });
  });

  it.each([
    [{ url: 'http://a.b:9/v1' }, 'http://a.b:9/'],
    [{ url: 'https://a.b/api/v1/' }, 'https://a.b/api'],
    [{ url: undefined, port: '9000' }, 'http://127.0.0.1:9000/'],
    [{ url: undefined, host: '::1' }, 'http://[::1]:8000/'],
  ])('takes the server from %o', (flags, url) => {
    expect(parse(flags).url?.href).toBe(url);
  });

  it('starts a server for a model without an address', () => {
    const options = parse({ url: undefined, model: './m', quantization: 'wint8' });
    expect(options).toMatchObject({ model: './m', quantization: 'wint8' });
    expect(options.url).toBeUndefined();
    expect(parse({ model: 'name', quantization: 'wint8' }).quantization).toBeNull();
  });

  it('takes the API from backend or endpoint', () => {
    const chat = { backend: 'openai-chat', endpoint: '/v1/chat/completions' };
    expect(parse({ backend: 'openai-chat' })).toMatchObject(chat);
    expect(parse({ endpoint: '/v1/chat/completions' })).toMatchObject(chat);
    expect(parse({ backend: 'vllm' }).backend).toBe('openai');
    expect(parse({ endpoint: '/openai/v1/completions' }).backend).toBe('openai');
  });

  it('reads lists', () => {
    expect(parse({ 'max-concurrency': ['1,4', '16', '4', 'inf'] }).concurrencies).toEqual([
      1,
      4,
      16,
      Infinity,
    ]);
    expect(parse({ goodput: ['ttft:500', 'tpot:50.5,e2el:9000'] }).goodput).toEqual({
      ttft: 500,
      tpot: 50.5,
      e2el: 9000,
    });
    const document = { 'percentile-metrics': 'e2el, client_queue_time', 'metric-percentiles': '50,99.9' };
    expect(parse(document).document).toMatchObject({
      latencies: ['e2el', 'client_queue_time'],
      percentiles: [50, 99.9],
    });
    expect(parse({ metadata: ['tp=1', 'version=a=b'] }).document.metadata).toEqual({
      tp: '1',
      version: 'a=b',
    });
  });

  it('sends a key and headers, which win', () => {
    expect(parse({ 'api-key': 's3cret' }).headers).toEqual({ authorization: 'Bearer s3cret' });
    expect(parse({ 'api-key': 's3cret', header: ['Authorization=Basic x=', 'X-A=1'] }).headers).toEqual({
      authorization: 'Basic x=',
      'x-a': '1',
    });
  });

  it('puts sampling into the body, and --extra-body over it', () => {
    const flags = {
      temperature: '0',
      'top-k': '5',
      'repetition-penalty': '1.1',
      'extra-body': '{"top_k": 7}',
    };
    expect(parse(flags).extraBody).toEqual({ temperature: 0, top_k: 7, repetition_penalty: 1.1 });
  });

  it('ignores the end of text for random prompts only, unless told', () => {
    expect(parse({ 'dataset-name': 'custom', 'dataset-path': 'x' }).ignoreEos).toBe(false);
    expect(parse({ 'ignore-eos': false }).ignoreEos).toBe(false);
    expect(parse({ 'dataset-name': 'custom', 'dataset-path': 'x', 'ignore-eos': true }).ignoreEos).toBe(true);
  });

  it.each<[ParsedFlags, string]>([
    [{ url: undefined }, 'Expected a server or a model to serve.'],
    [{ url: 'localhost:8000' }, 'Expected --url to be an address'],
    [{ url: 'http://u:p@h' }, 'Expected --url without a user'],
    [{ port: '80' }, 'received both'],
    [{ endpoint: '/v1/embeddings' }, '/v1/embeddings'],
    [{ backend: 'openai', endpoint: '/v1/chat/completions' }, '--backend openai'],
    [{ backend: 'tgi' }, 'only the OpenAI API is spoken'],
    [{ 'max-concurrency': ['4,x'] }, '"x"'],
    [{ 'max-concurrency': ['0'] }, '"0"'],
    [{ 'request-rate': '0' }, '"0"'],
    [{ 'request-rate': 'fast' }, '"fast"'],
    [{ goodput: ['itl:5'] }, '"itl:5"'],
    [{ goodput: ['ttft'] }, '"ttft"'],
    [{ 'percentile-metrics': 'ttft,latency' }, '"latency"'],
    [{ 'metric-percentiles': '101' }, '"101"'],
    [{ 'custom-output-len': '0' }, '--custom-output-len'],
    [{ 'random-range-ratio': '1' }, '--random-range-ratio'],
    [{ 'dataset-name': 'hf' }, 'JSON lines'],
    [{ 'save-detailed': true }, '--save-detailed needs --save-result'],
    [{ 'result-dir': 'x' }, '--result-dir needs --save-result'],
    [
      { 'save-result': true, 'result-filename': 'x', 'max-concurrency': ['1,2'] },
      '--result-filename names one file, and --max-concurrency asks for 2.',
    ],
  ])('refuses %o', (flags, message) => {
    expect(() => parse(flags)).toThrow(message);
    expect(() => parse(flags)).toThrow(expect.objectContaining({ exitCode: 2 }));
  });

  it('does not repeat what may be secret', () => {
    const read = (): unknown => parse({ header: ['s3cret'] });
    expect(read).toThrow('Expected --header to be NAME=VALUE.');
    expect(() => parse({ header: ['a=b\r\nc: d'] })).toThrow('Expected --header to be NAME=VALUE.');
  });
});

describe('the flags', () => {
  const rows = Object.entries<FlagRow>(BENCH_SERVE_FLAGS);

  it('spell nothing twice, and keep keys and headers to themselves', () => {
    const names = rows.flatMap(([name, { aliases = [] }]) => [name, ...aliases]);
    const chars = rows.flatMap(([, { char }]) => char ?? []);
    expect(new Set(names).size).toBe(names.length);
    expect(new Set(chars).size).toBe(chars.length);
    expect(rows.filter(([, { secret }]) => secret).map(([name]) => name)).toEqual(['api-key', 'header']);
  });

  it.each(rows)('%s is well formed', (_, row) => {
    expect(row.summary).toMatch(/[.)]$/);
    expect(row.kind === 'choice').toBe(row.options !== undefined);
  });
});
