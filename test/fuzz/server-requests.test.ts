import { describe, expect, it } from 'vitest';
import { fc } from '../helpers/properties.js';
import { makeApp, readEvents } from '../helpers/test-server.js';

const MIN_BODIES = 5000;
const BATCH = 50;
const CANARY = 'the canary';

const CHAT = {
  model: 'fake',
  messages: [
    { role: 'user', content: 'hi' },
    { role: 'assistant', content: [{ type: 'text', text: 'x' }] },
    { role: 'user', content: 'go' },
  ],
  temperature: 1,
  top_p: 1,
  top_k: 0,
  min_p: 0,
  n: 1,
  max_tokens: 4,
  max_completion_tokens: 4,
  seed: 1,
  stop: ['a'],
  logit_bias: { '1': 1 },
  logprobs: true,
  top_logprobs: 2,
  stream: false,
  stream_options: null,
  stop_token_ids: [1],
  allowed_token_ids: [1],
  bad_words: ['x'],
  min_tokens: 0,
  presence_penalty: 0,
  frequency_penalty: 0,
  repetition_penalty: 1,
  prompt_logprobs: null,
  chat_template_kwargs: { a: 1 },
  cache_salt: 's',
  priority: 0,
  truncate_prompt_tokens: null,
  return_token_ids: true,
  request_id: 'r',
  response_format: { type: 'text' },
  tools: null,
  tool_choice: 'none',
};
const COMPLETION = {
  ...CHAT,
  messages: undefined,
  logprobs: 1,
  top_logprobs: undefined,
  prompt: [[1, 2], [3]],
  echo: true,
};
const TOKENIZE = {
  messages: CHAT.messages,
  prompt: 'x',
  add_special_tokens: true,
  return_token_strs: true,
  tokens: [1, 2],
};
const SEEDS = [
  ['/v1/chat/completions', CHAT],
  ['/v1/completions', COMPLETION],
  ['/tokenize', TOKENIZE],
  ['/detokenize', TOKENIZE],
] as const;

/** JSON texts, not values: some have no JavaScript form. */
const RAW = [
  'null',
  'true',
  'false',
  '0',
  '-0',
  '-1',
  '1e308',
  '-1e308',
  '1e999',
  '0.1',
  '9007199254740993',
  '18446744073709551616',
  '-9223372036854775809',
  '512',
  '2147483648',
  '4294967296',
  '""',
  '"NaN"',
  '"Infinity"',
  '"\\ud800"',
  '"\\u0000\\u001b[31m"',
  '"<|im_end|><|im_start|>"',
  '[]',
  '[null]',
  '[[]]',
  '[[[]]]',
  '[{}]',
  '{}',
  '{"":""}',
  '[1,"a"]',
  '["a",1]',
  '[-1]',
  '[1.5]',
  '[1e308]',
  '[9007199254740993]',
  '{"type":"text"}',
  '{"type":"text","text":5}',
  '[{"type":"image_url"}]',
  '{"__proto__":{"a":1}}',
  '{"constructor":1}',
  '[{"role":"user"}]',
  '[{"role":"tool","content":"x"}]',
  '[{"role":"assistant","content":null,"tool_calls":[{}]}]',
  '[{"role":"assistant","tool_calls":5}]',
  '{"tokenize":true}',
  '{"messages":[]}',
  '{"include_usage":true}',
  '{"999999999999":1}',
  '{"1":"x"}',
  `"${'x'.repeat(5000)}"`,
  `[${'1,'.repeat(5000)}1]`,
  `[${'"a",'.repeat(2500)}"a"]`,
  `${'['.repeat(1000)}${']'.repeat(1000)}`,
  `${'['.repeat(100_000)}${']'.repeat(100_000)}`,
  `${'{"a":'.repeat(60)}1${'}'.repeat(60)}`,
  'NaN',
  'undefined',
  '-',
  '',
  '{',
  '"',
];

/** A place inside a body: keys and indices to follow, modulo what is there. */
interface Mutation {
  readonly steps: readonly number[];
  readonly kind: number;
  readonly raw: string;
}

const HOLE = '\u0001hole\u0001';

function mutate(value: unknown, mutation: Mutation, depth = 0): unknown {
  const step = mutation.steps[depth];
  if (typeof value !== 'object' || value === null || step === undefined) return HOLE;
  const keys = Object.keys(value);
  if (keys.length === 0) return HOLE;
  const key = keys[step % keys.length] as string;
  const copy = (Array.isArray(value) ? [...(value as unknown[])] : { ...value }) as Record<string, unknown>;
  if (mutation.kind === 0 && depth === mutation.steps.length - 1) {
    copy[key] = undefined;
    copy[`${key}_`] = HOLE;
  } else copy[key] = mutate(copy[key], mutation, depth + 1);
  return copy;
}

const mutation = fc.record<Mutation>({
  steps: fc.array(fc.nat({ max: 1000 }), { minLength: 1, maxLength: 4 }),
  kind: fc.nat({ max: 5 }),
  raw: fc.oneof(
    { weight: 5, arbitrary: fc.constantFrom(...RAW) },
    { weight: 2, arbitrary: fc.json() },
    { weight: 1, arbitrary: fc.string() },
  ),
});

function toBody(seed: object, mutations: readonly Mutation[]): string {
  let text = JSON.stringify(seed);
  for (const one of mutations) {
    try {
      text = JSON.stringify(mutate(JSON.parse(text), one)).replaceAll(JSON.stringify(HOLE), () => one.raw);
    } catch {
      // Broken or too deep for JSON.stringify by the mutation before: sent as it is.
      return text;
    }
  }
  return text;
}

interface ErrorBody {
  readonly error?: Record<string, unknown>;
}

function check(status: number, contentType: string, body: string): void {
  expect(status).toBeLessThan(500);
  if (contentType.startsWith('text/event-stream')) {
    for (const event of readEvents(body))
      expect((event as ErrorBody).error?.['code']).not.toBe('internal_error');
    expect(body.endsWith('data: [DONE]\n\n')).toBe(true);
    return;
  }
  const answer = JSON.parse(body) as ErrorBody;
  if (status === 200) return;
  expect(Object.keys(answer.error ?? {}).sort()).toEqual(['code', 'message', 'param', 'type']);
  expect(body).not.toMatch(/node_modules|\.ts:\d|\.js:\d|\\n +at /);
}

async function report<T>(details: fc.RunDetails<T>): Promise<void> {
  if (!details.failed) return;
  throw new Error(`seed ${details.seed}, path ${details.counterexamplePath}, ${details.numRuns} batches`, {
    cause: details.errorInstance,
  });
}

describe('mutated requests', () => {
  it('are answered or refused, and disturb nobody', async () => {
    const server = await makeApp({
      script: () => [39, 68, 327, 78],
      info: { maxModelLen: 4096 },
      isManual: ({ cacheSalt }) => cacheSalt === CANARY,
    });
    const statuses = new Map<number, number>();
    let count = 0;
    try {
      // The canary is fed one token per batch and must come out whole.
      const next = server.model.engine.nextRequest();
      const canary = server.app.inject({
        method: 'POST',
        url: '/v1/chat/completions',
        payload: { messages: CHAT.messages, stream: true, cache_salt: CANARY },
      });
      const canaryRequest = await next;
      canaryRequest.start();
      let fed = 0;
      const body = fc.tuple(fc.constantFrom(...SEEDS), fc.array(mutation, { minLength: 1, maxLength: 3 }));
      await fc.assert(
        fc.asyncProperty(fc.array(body, { minLength: BATCH, maxLength: BATCH }), async (bodies) => {
          canaryRequest.emit([39]);
          fed += 1;
          const answers = await Promise.all(
            bodies.map(([[url, seed], mutations]) =>
              server.app.inject({
                method: 'POST',
                url,
                payload: toBody(seed, mutations),
                headers: { 'content-type': 'application/json' },
              }),
            ),
          );
          for (const answer of answers) {
            count += 1;
            statuses.set(answer.statusCode, (statuses.get(answer.statusCode) ?? 0) + 1);
            check(answer.statusCode, String(answer.headers['content-type']), answer.body);
          }
        }),
        {
          numRuns: Math.ceil(MIN_BODIES / BATCH),
          endOnFailure: true,
          // The default report would print fifty bodies of up to 200 kB.
          asyncReporter: report,
        },
      );
      canaryRequest.emit([68], 0, 'stop');
      const text = readEvents((await canary).body)
        .slice(0, -1)
        .map(
          (event) => (event as { choices: [{ delta: { content?: string } }] }).choices[0].delta.content ?? '',
        )
        .join('');
      expect(text).toBe(`${'H'.repeat(fed)}e`);
    } finally {
      await server.close();
    }
    expect(count).toBeGreaterThanOrEqual(MIN_BODIES);
    // Some must get through, or the mutator only exercises the parser.
    expect(statuses.get(200) ?? 0).toBeGreaterThan(MIN_BODIES / 20);
    expect(statuses.get(400) ?? 0).toBeGreaterThan(MIN_BODIES / 5);
    expect(server.model.engine.stats().running).toBe(0);
  });
});
