import { afterEach, describe, expect, it } from 'vitest';
import { makeApp } from '../../helpers/test-server.js';

type App = Awaited<ReturnType<typeof makeApp>>;
const open: App[] = [];
afterEach(async () => {
  await Promise.all(open.splice(0).map((app) => app.close()));
});

interface Refused {
  readonly error: { readonly message: string; readonly type: string; readonly param: string | null };
}

const hi = { role: 'user', content: 'hi' };
const ADVICE = 'See the API reference for the field’s type and range.';

/** Body over a good chat, the path that is wrong, and what is said about it. */
const CHATS: readonly (readonly [Record<string, unknown>, string, string])[] = [
  [{ temperature: 'hot' }, 'temperature', 'to be a number but received "hot"'],
  [{ temperature: -1 }, 'temperature', 'to be at least 0 but received -1'],
  [{ top_p: 1.5 }, 'top_p', 'to be at most 1 but received 1.5'],
  [{ repetition_penalty: 0 }, 'repetition_penalty', 'to be above 0 but received 0'],
  [{ n: 1.5 }, 'n', 'to be a whole number but received 1.5'],
  [{ n: 0 }, 'n', 'to be at least 1 but received 0'],
  [{ n: [1] }, 'n', 'to be a whole number but received an array of 1'],
  [{ max_tokens: {} }, 'max_tokens', 'to be a whole number but received an object'],
  [{ stream: 'yes' }, 'stream', 'to be true or false but received "yes"'],
  [{ stream_options: true }, 'stream_options', 'to be an object but received true'],
  [
    { stream: true, stream_options: { include_usage: 1 } },
    'stream_options.include_usage',
    'to be true or false but received 1',
  ],
  [{ messages: undefined }, 'messages', 'to be an array but received nothing'],
  [{ messages: 'hi' }, 'messages', 'to be an array but received "hi"'],
  [{ messages: [] }, 'messages', 'to be an array of at least 1 item but received an empty array'],
  [{ messages: [hi, 3] }, 'messages[1]', 'to be an object but received 3'],
  [
    { messages: [{ role: 'boss', content: 'x' }] },
    'messages[0].role',
    'to be one of "system", "developer", "user", "assistant", "tool" but received "boss"',
  ],
  [
    { messages: [{ role: 'user', content: 3 }] },
    'messages[0].content',
    'to be a string or an array of content parts but received 3',
  ],
  [
    { stop: 5 },
    'stop',
    'to be a non-empty string or up to 16 of them, each at most 1024 long but received 5',
  ],
  [{ seed: 'x' }, 'seed', 'to be a 64-bit integer but received "x"'],
  [{ stop: [''] }, 'stop[0]', 'to be a string of at least 1 character but received ""'],
  [{ logit_bias: { x: 1 } }, 'logit_bias.x', 'to have a token id as its key'],
  [{ logit_bias: { 5: 200 } }, 'logit_bias.5', 'to be at most 100 but received 200'],
  [{ allowed_token_ids: [1, -2] }, 'allowed_token_ids[1]', 'to be at least 0 but received -2'],
  [
    { allowed_token_ids: [] },
    'allowed_token_ids',
    'to be an array of at least 1 item but received an empty array',
  ],
  [{ bad_words: [''] }, 'bad_words[0]', 'to be a string of at least 1 character but received ""'],
  [{ truncate_prompt_tokens: 0 }, 'truncate_prompt_tokens', 'to be -1 or at least 1 but received 0'],
  [{ echo: true }, 'echo', 'to be false, for it is of /v1/completions, but received true'],
  [
    { request_id: 'x'.repeat(300) },
    'request_id',
    `to be a string of at most 256 characters but received "${'x'.repeat(64)}..."`,
  ],
  [{ chat_template_kwargs: 'x' }, 'chat_template_kwargs', 'to be an object but received "x"'],
];

async function refusal(url: string, payload: object): Promise<Refused & { readonly status: number }> {
  const app = await makeApp({ script: () => [39] });
  open.push(app);
  const response = await app.app.inject({ method: 'POST', url, payload });
  return { ...response.json<Refused>(), status: response.statusCode };
}

describe('a request with a field that is wrong', () => {
  it.each(CHATS)('%j is refused: %s', async (fields, param, text) => {
    const { status, error } = await refusal('/v1/chat/completions', { messages: [hi], ...fields });
    expect(error).toEqual({
      message: `Expected ${param} ${text}. ${ADVICE}`,
      type: 'invalid_request_error',
      param,
      code: 'invalid_request',
    });
    expect(status).toBe(400);
  });

  it.each([
    [
      '/v1/completions',
      { prompt: 'x', logprobs: true },
      'logprobs',
      'to be a whole number but received true',
    ],
    ['/v1/completions', { prompt: 'x', max_tokens: -1 }, 'max_tokens', 'to be at least 0 but received -1'],
    ['/tokenize', { prompt: 3 }, 'prompt', 'to be a string but received 3'],
    ['/detokenize', { tokens: [1], model: 3 }, 'model', 'to be a string but received 3'],
  ])('%s %j is refused in the same words', async (url, fields, param, text) => {
    const { status, error } = await refusal(url, fields);
    expect(error).toMatchObject({ message: `Expected ${param} ${text}. ${ADVICE}`, param });
    expect(status).toBe(400);
  });
});
