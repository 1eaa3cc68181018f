import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { BENCH_SERVE_FLAGS } from '../../../src/cli/bench-serve-flags.js';
import { SERVE_FLAGS } from '../../../src/cli/flags.js';
import { INSPECT_FLAGS } from '../../../src/cli/inspect-flags.js';
import { toServeOptions, type ServeOptions } from '../../../src/cli/serve-options.js';
import {
  ignoredFlagWarnings,
  printSettings,
  resolveSettings,
  valuesOf,
  type ParsedFlags,
  type Settings,
} from '../../../src/cli/settings.js';
import { UserError } from '../../../src/errors.js';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'fdq-settings-'));
});
afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

function resolve(flags: ParsedFlags, environment: Record<string, string> = {}): Settings<typeof SERVE_FLAGS> {
  return resolveSettings(SERVE_FLAGS, { flags, environment, configDir: folder });
}

function options(flags: ParsedFlags, environment: Record<string, string> = {}): ServeOptions {
  return toServeOptions(valuesOf(resolve({ model: 'm', ...flags }, environment)));
}

describe('resolveSettings', () => {
  it('takes the command line over the environment over the file over the default', () => {
    writeFileSync(path.join(folder, 'config.yaml'), 'port: 1\nhost: file\nmax_num_seqs: 3\n');
    const settings = resolve({ port: '3' }, { FDQ_PORT: '2', FDQ_HOST: 'environment' });
    expect(settings.port).toEqual({ value: 3, origin: { kind: 'flag' } });
    expect(settings.host.origin).toEqual({ kind: 'environment', variable: 'FDQ_HOST' });
    expect(settings['max-num-seqs'].value).toBe(3);
    expect(settings['max-logprobs']).toEqual({ value: 20, origin: { kind: 'default' } });
    expect(settings.revision).toEqual({ value: undefined, origin: { kind: 'default' } });
  });

  it('reads a file named by FDQ_CONFIG, JSON too, and prefers --config', () => {
    const [first, second] = [path.join(folder, 'a.json'), path.join(folder, 'b.yaml')];
    writeFileSync(first, '{"port": 10, "quantization_config": {"linear": "wint8"}}');
    writeFileSync(second, 'port: 20');
    expect(resolve({}, { FDQ_CONFIG: first }).port.value).toBe(10);
    expect(resolve({}, { FDQ_CONFIG: first })['quantization-config'].value).toEqual({ linear: 'wint8' });
    expect(resolve({ config: second }, { FDQ_CONFIG: first }).port.value).toBe(20);
  });

  it('splits lists of the environment at commas and treats an empty variable as absent', () => {
    const settings = resolve({}, { FDQ_SERVED_MODEL_NAME: 'a, b', FDQ_PORT: '' });
    expect(settings['served-model-name'].value).toEqual(['a', 'b']);
    expect(settings.port.value).toBe(8000);
  });

  it('refuses an empty value of a list, which an unset shell variable leaves behind', () => {
    const empty = 'but received an empty one';
    expect(() => resolve({ 'served-model-name': [''] })).toThrow(
      `Expected a value for --served-model-name ${empty}`,
    );
    const file = path.join(folder, 'empty.yaml');
    writeFileSync(file, 'served-model-name: [a, ""]');
    expect(() => resolve({ config: file })).toThrow(empty);
    expect(() => resolve({}, { FDQ_SERVED_MODEL_NAME: 'a,,b' })).toThrow(
      `Expected a value for FDQ_SERVED_MODEL_NAME (--served-model-name) ${empty}`,
    );
  });

  it('names the variable that is wrong', () => {
    expect(() => resolve({}, { FDQ_PORT: 'abc' })).toThrow('Expected FDQ_PORT (--port) to be a port');
    expect(() => resolve({}, { FDQ_OFFLINE: 'perhaps' })).toThrow('FDQ_OFFLINE (--offline)');
  });

  it('ignores flags that only the command line has', () => {
    expect(resolve({}, { FDQ_PRINT_CONFIG: '1' })['print-config'].value).toBeUndefined();
    writeFileSync(path.join(folder, 'config.yaml'), 'print-config: true');
    expect(() => resolve({})).toThrow('unknown key "print-config"');
  });

  it.each([
    ['port: 1\nport: 2\n', 'Line 2'],
    ['- a\n', 'Line 1'],
    ['port:\n', 'port has no value'],
    ['api-key: {a: b}\n', 'api-key is not a list of values'],
  ])('refuses the file %j', (text, message) => {
    writeFileSync(path.join(folder, 'config.yaml'), text);
    expect(() => resolve({})).toThrow(message);
  });

  it('passes over keys that only other commands have, in either spelling and whatever their value', () => {
    writeFileSync(
      path.join(folder, 'config.yaml'),
      'port: [1, 2]\nmax_num_seqs: 3\nnum-prompts: 9\ndataset-name: {}\nquantization: wint8\n',
    );
    const settings = resolveSettings(INSPECT_FLAGS, { flags: {}, environment: {}, configDir: folder });
    expect(settings.quantization.value).toBe('wint8');
    expect(Object.keys(settings)).not.toContain('port');
  });

  it.each([
    ['prot: 1', 'prot', 'Did you mean port?'],
    ['num-promts: 1', 'num-promts', 'Did you mean num-prompts?'],
    ['measure: true', 'measure', undefined],
  ])('refuses %j, a key that no command has', (text, key, suggestion) => {
    writeFileSync(path.join(folder, 'config.yaml'), `quantization: wint8\n${text}\n`);
    const read = (): unknown =>
      resolveSettings(INSPECT_FLAGS, { flags: {}, environment: {}, configDir: folder });
    expect(read).toThrow(`Line 2 of ${path.join(folder, 'config.yaml')}: unknown key "${key}".`);
    if (suggestion !== undefined) {
      expect(read).toThrow(expect.objectContaining({ suggestions: [suggestion] }) as Error);
    }
  });

  it("takes the first of another command's list where one value is meant", () => {
    writeFileSync(path.join(folder, 'config.yaml'), 'served-model-name: [qwen, small]\n');
    const environment = { FDQ_API_KEY: 'first, second' };
    const settings = resolveSettings(BENCH_SERVE_FLAGS, { flags: {}, environment, configDir: folder });
    expect(settings['served-model-name'].value).toBe('qwen');
    expect(settings['api-key'].value).toBe('first');
    writeFileSync(path.join(folder, 'config.yaml'), 'model: [a, b]\n');
    expect(() => resolve({})).toThrow('model is not one value');
  });

  it('reads no file for a command without settings', () => {
    writeFileSync(path.join(folder, 'config.yaml'), '- broken');
    expect(resolveSettings({}, { flags: {}, environment: {}, configDir: folder })).toEqual({});
  });

  it('takes an empty file for no settings', () => {
    writeFileSync(path.join(folder, 'config.yaml'), '# nothing yet\n');
    expect(resolve({}).port.value).toBe(8000);
  });

  it('says which config file cannot be read', () => {
    const file = path.join(folder, 'absent.yaml');
    expect(() => resolve({ config: file })).toThrow(`Cannot read the config file ${file}: ENOENT.`);
  });
});

describe('printSettings', () => {
  it('prints a file that, read again, gives the same values', () => {
    const flags = { model: 'm', port: '9', 'served-model-name': ['a', 'b'], 'enable-prefix-caching': false };
    const before = resolve(flags);
    writeFileSync(path.join(folder, 'config.yaml'), printSettings(SERVE_FLAGS, before));
    expect(valuesOf(resolve({}))).toEqual(valuesOf(before));
  });

  it('hides secrets', () => {
    const text = printSettings(SERVE_FLAGS, resolve({ 'api-key': ['hunter2'] }));
    expect(text).not.toContain('hunter2');
    expect(text).toContain('# api-key: 1 hidden  # command line');
  });
});

describe('ignoredFlagWarnings', () => {
  it('warns once for each flag that is set', () => {
    expect(ignoredFlagWarnings(SERVE_FLAGS, resolve({}))).toEqual([]);
    const warnings = ignoredFlagWarnings(SERVE_FLAGS, resolve({ 'cache-queue-port': '1' }, {}));
    expect(warnings).toHaveLength(1);
    expect(warnings[0]).toContain('--cache-queue-port: fdq runs in one process');
  });
});

describe('toServeOptions', () => {
  it('gives bytes, milliseconds and the defaults', () => {
    const result = options({ 'kv-cache-memory': '2GiB', 'max-waiting-time': '1.5', 'root-path': '/a/b/' });
    expect(result.memory.kvCacheBytes).toBe(2 * 1024 ** 3);
    expect(result.memory).toMatchObject({ blockSize: 16, memoryUtilization: 0.9, enablePrefixCaching: true });
    expect(result.http).toMatchObject({
      host: '127.0.0.1',
      port: 8000,
      maxWaitingMs: 1500,
      rootPath: '/a/b',
    });
    expect(result.gracefulShutdownMs).toBe(30_000);
    expect(result.http.requestLog).toBe('line');
    expect(options({}).http).not.toHaveProperty('maxWaitingMs');
    expect(options({})).not.toHaveProperty('quantization');
  });

  it('passes on a JSON object given as --quantization, and one beside it', () => {
    expect(options({ quantization: ' {"linear": "wint4"}' })).toMatchObject({
      quantization: '{"linear":"wint4"}',
    });
    expect(options({ quantization: 'wint8' })).toMatchObject({ quantization: 'wint8' });
    expect(options({ quantization: '{}', 'quantization-config': ['{"ignore": []}'] })).toMatchObject({
      quantization: '{}',
      quantizationConfig: { ignore: [] },
    });
  });

  it('reads --quantization from a file', () => {
    const file = path.join(folder, 'q.yaml');
    writeFileSync(file, 'quantization: wint4:g128\nignore: [re:.*o_proj]\n');
    expect(options({ quantization: `@${file}` }).quantization).toBe(
      '{"quantization":"wint4:g128","ignore":["re:.*o_proj"]}',
    );
  });

  it('says what else to quantize only when asked', () => {
    expect(options({})).not.toHaveProperty('quantizeLmHead');
    expect(options({ 'quantize-lm-head': true, 'quantize-embeddings': true })).toMatchObject({
      quantizeLmHead: true,
      quantizeEmbeddings: true,
    });
    expect(options({}, { FDQ_QUANTIZE_LM_HEAD: '1' })).toMatchObject({ quantizeLmHead: true });
  });

  it('adds up the parts of a JSON flag, and refuses parts that disagree', () => {
    const parts = ['{"linear": "wint8", "ignore": ["a"]}', '{"moe": "wint4", "ignore": ["b"]}'];
    expect(options({ 'quantization-config': parts }).quantizationConfig).toEqual({
      linear: 'wint8',
      ignore: ['a', 'b'],
      moe: 'wint4',
    });
    expect(() => options({ 'quantization-config': [...parts, '{"moe": "wint8"}'] })).toThrow(
      'Expected one value for "moe" of --quantization-config but received "wint4" and "wint8".',
    );
  });

  it.each<[ParsedFlags, string]>([
    [{ 'trust-remote-code': true }, '--trust-remote-code is refused'],
    [{ 'enable-chunked-prefill': false }, '--no-enable-chunked-prefill is not supported'],
    [{ 'tensor-parallel-size': '2' }, '--tensor-parallel-size'],
    [{ 'block-size': '64' }, 'Expected --block-size to be 16'],
    [{ 'kv-cache-dtype': 'fp8_e5m2' }, '--kv-cache-dtype fp8_e5m2 is not supported'],
    [{ host: '0.0.0.0' }, '--host 0.0.0.0 lets other machines in'],
    [{ 'ssl-keyfile': 'a' }, '--ssl-certfile is missing'],
    [{ 'ssl-certfile': 'a' }, '--ssl-keyfile is missing'],
    [{ 'max-num-seqs': '9', 'max-num-batched-tokens': '8' }, 'at least --max-num-seqs (9)'],
    [{ 'gpu-memory-utilization': '1.1' }, 'from 0.01 to 1'],
    [{ model: '' }, 'Expected a model'],
    [{ quantization: '{wint8}' }, 'Expected --quantization to be a JSON object but it does not parse'],
    [{ quantization: '@/no/such.json' }, 'Expected --quantization to name a readable file'],
  ])('refuses %j', (flags, message) => {
    expect(() => options(flags)).toThrow(message);
    expect(() => options(flags)).toThrow(UserError);
  });

  it.each([
    ['@/no/such.json', 'There is no such file: check the path behind the @.'],
    ['@/dev/null', 'Name a regular file behind the @; a pipe or a folder is none.'],
  ])('says what to do about --quantization %s', (quantization, advice) => {
    let error: unknown;
    try {
      options({ quantization });
    } catch (caught) {
      error = caught;
    }
    expect(error).toMatchObject({ code: 'usage', suggestions: [advice] });
  });

  it.each<[ParsedFlags, Record<string, string>]>([
    [{ host: '0.0.0.0', 'api-key': ['k'] }, {}],
    [{ host: '0.0.0.0', 'allow-remote-without-key': true }, {}],
    [{ host: '0.0.0.0' }, { FDQ_API_KEY: 'k' }],
    [{ host: '::1' }, {}],
    [{ host: 'localhost' }, {}],
  ])('listens on %j', (flags, environment) => {
    expect(options(flags, environment).http.host).toBe(flags['host']);
  });

  it('refuses an empty key as no key', () => {
    expect(() => options({ host: '0.0.0.0', 'api-key': [''] })).toThrow('no --api-key is set');
  });
});
