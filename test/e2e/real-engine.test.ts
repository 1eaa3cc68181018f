import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { ROOT } from '../helpers/cli.js';
import { eventually } from '../helpers/eventually.js';
import { serveProcess, type ServedProcess } from '../helpers/serve-process.js';
import { readEvents } from '../helpers/test-server.js';

const DEMO = [path.join(ROOT, 'models', 'demo'), '--quantization', 'block_wise_fp8'];
/** Room for one long request and a bit: anything more has to be preempted. */
const TIGHT = ['--num-gpu-blocks-override', '40', '--max-model-len', '512', '--max-num-batched-tokens', '64'];
const QUESTION = 'Question: What is 7 times 8?\nAnswer:';

interface Logprobs {
  readonly tokens: string[];
  readonly token_logprobs: (number | null)[];
  readonly top_logprobs: (Record<string, number> | null)[];
}

interface Choice {
  readonly index: number;
  readonly text: string;
  readonly finish_reason: string | null;
  readonly stop_reason: string | number | null;
  readonly logprobs: Logprobs | null;
  readonly token_ids?: number[];
}

interface Answer {
  readonly choices: Choice[];
  readonly usage: { readonly completion_tokens: number };
}

function post(server: ServedProcess, body: object, init: RequestInit = {}): Promise<Response> {
  const headers = { 'content-type': 'application/json' };
  const text = JSON.stringify(body);
  return fetch(`${server.url}/v1/completions`, { method: 'POST', headers, body: text, ...init });
}

async function complete(server: ServedProcess, body: object): Promise<Answer> {
  const response = await post(server, body);
  expect(response.status).toBe(200);
  return (await response.json()) as Answer;
}

async function tokenize(server: ServedProcess, prompt: string): Promise<number[]> {
  const response = await fetch(`${server.url}/tokenize`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ prompt, add_special_tokens: false }),
  });
  return ((await response.json()) as { tokens: number[] }).tokens;
}

async function events(server: ServedProcess): Promise<Record<string, number>> {
  const names = ['accepted', 'finished', 'cancelled', 'failed'];
  const counts = await Promise.all(
    names.map((name) => server.metric(`fdq:engine_requests_total{event="${name}"`)),
  );
  return Object.fromEntries(names.map((name, i) => [name, counts[i] as number]));
}

describe('the server on its own engine', () => {
  it('scores what lm-eval sends, with or without a generated token, cached or not', async () => {
    const server = await serveProcess(DEMO);
    const ids = await tokenize(server, QUESTION);
    const payload = { prompt: [ids, ids.slice(0, 5)], temperature: 0, logprobs: 1, echo: true, seed: 1234 };
    const scores: (number | null)[][] = [];
    for (const maxTokens of [1, 1, 0]) {
      const { choices } = await complete(server, { ...payload, max_tokens: maxTokens });
      expect(choices.map(({ index }) => index)).toEqual([0, 1]);
      const { tokens, token_logprobs, top_logprobs } = choices[0]?.logprobs as Logprobs;
      expect(tokens.slice(0, ids.length).join('')).toBe(QUESTION);
      expect(token_logprobs).toHaveLength(ids.length + maxTokens);
      expect([token_logprobs[0], top_logprobs[0]]).toEqual([null, null]);
      token_logprobs.slice(1).forEach((logprob, i) => {
        expect(Object.values(top_logprobs[i + 1] ?? {})).toContain(logprob);
      });
      if (maxTokens === 1) {
        expect(token_logprobs.at(-1)).toBe(Math.max(...Object.values(top_logprobs.at(-1) ?? {})));
      }
      scores.push(token_logprobs.slice(0, ids.length));
    }
    expect(scores[1]).toEqual(scores[0]);
    expect(scores[2]).toEqual(scores[0]);
  });

  it('draws the same tokens for a seed alone, in company and after preemption', async () => {
    const bodies = Array.from({ length: 8 }, (_, i) => ({
      ...{
        prompt: `Item ${i}. ${'The dog ran home. '.repeat(i)}`,
        seed: i,
        temperature: 1.2,
        n: 1 + (i % 2),
      },
      ...{ max_tokens: 120, ignore_eos: true, logprobs: 1 },
    }));
    const roomy = await serveProcess(DEMO);
    const alone: Choice[][] = [];
    for (const body of bodies) alone.push((await complete(roomy, body)).choices);
    const tight = await serveProcess([...DEMO, ...TIGHT]);
    const together = await Promise.all(bodies.map((body) => complete(tight, body)));
    expect(together.map(({ choices }) => choices)).toEqual(alone);
    expect(await tight.metric('vllm:num_preemptions_total')).toBeGreaterThan(0);
    expect(await tight.metric('vllm:kv_cache_usage_perc')).toBe(0);
  });

  it('stops where it is told to, streamed or not', async () => {
    const server = await serveProcess(DEMO);
    const greedy = { prompt: QUESTION, temperature: 0, max_tokens: 40, ignore_eos: true };
    const [whole] = (await complete(server, { ...greedy, return_token_ids: true })).choices as [Choice];
    expect(whole).toMatchObject({ finish_reason: 'length', stop_reason: null });
    // Begins within one token and ends within another.
    const stop = whole.text.slice(11, 23);
    const cut = whole.text.slice(0, whole.text.indexOf(stop));
    const [stopped] = (await complete(server, { ...greedy, stop })).choices as [Choice];
    expect(stopped).toMatchObject({ text: cut, finish_reason: 'stop', stop_reason: stop });
    const streamed = await (await post(server, { ...greedy, stop, stream: true })).text();
    const chunks = readEvents(streamed).slice(0, -1) as Answer[];
    expect(chunks.map(({ choices }) => choices[0]?.text).join('')).toBe(cut);
    const [third] = (whole.token_ids ?? []).slice(2);
    const byId = { ...greedy, stop_token_ids: [third], min_tokens: 1, return_token_ids: true };
    const [ended] = (await complete(server, byId)).choices as [Choice];
    expect(ended.stop_reason).toBe(third);
    expect((whole.token_ids ?? []).slice(0, ended.token_ids?.length)).toEqual(ended.token_ids);
  });

  it('takes more prompts in one request than its queue holds, and refuses requests past it', async () => {
    const server = await serveProcess([...DEMO, '--max-concurrency', '3', '--max-num-seqs', '2']);
    const many = Array.from({ length: 40 }, (_, i) => `${i}`);
    const { choices } = await complete(server, { prompt: many, max_tokens: 2, echo: true });
    expect(choices.map(({ text }) => /^\d+/.exec(text)?.[0]?.slice(0, 1))).toEqual(
      many.map((text) => text[0]),
    );
    const long = { prompt: 'a', max_tokens: 2000, ignore_eos: true, stream: true };
    const leave = new AbortController();
    await Promise.all([1, 2, 3].map(() => post(server, long, { signal: leave.signal })));
    const refused = await post(server, { prompt: 'a' });
    expect(refused.status).toBe(429);
    expect(refused.headers.get('retry-after')).toBe('1');
    leave.abort();
    await eventually(async () => expect(await server.metric('fdq:engine_requests_live')).toBe(0));
  });

  it('stops computing for a client that left, balances its books, and drains', async () => {
    const server = await serveProcess(DEMO);
    for (const stream of [true, false]) {
      const leave = new AbortController();
      const body = { prompt: 'a', n: 8, max_tokens: 1900, ignore_eos: true, stream };
      const answer = post(server, body, { signal: leave.signal });
      const outcome = answer.then((response) => response.text()).catch(() => 'left');
      await eventually(async () => expect(await server.metric('vllm:num_requests_running')).toBe(8));
      leave.abort();
      expect(await outcome).toBe('left');
      await eventually(async () => expect(await server.metric('fdq:engine_requests_live')).toBe(0));
      expect(await server.metric('vllm:kv_cache_usage_perc')).toBe(0);
      const generated = await server.metric('vllm:generation_tokens_total');
      expect(generated).toBeLessThan(2 * 8 * 1900);
      await complete(server, { prompt: 'b', max_tokens: 1, ignore_eos: true });
      expect(await server.metric('vllm:generation_tokens_total')).toBe(generated + 1);
    }
    expect(await events(server)).toEqual({ accepted: 4, finished: 2, cancelled: 2, failed: 0 });
    const last = { prompt: 'a', max_tokens: 1200, ignore_eos: true, stream: true };
    const stream = await post(server, { ...last, stream_options: { include_usage: true } });
    const exit = server.stop();
    const chunks = readEvents(await stream.text());
    expect(chunks.at(-1)).toBe('[DONE]');
    expect((chunks.at(-2) as Answer).usage.completion_tokens).toBe(1200);
    expect(await exit).toBe(0);
  });
});
