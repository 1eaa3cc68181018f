import { afterEach, describe, expect, it } from 'vitest';
import { makeApp, readEvents } from '../../helpers/test-server.js';
import type { TestModelOptions } from '../../helpers/test-server.js';
import type { ServerOptions } from '../../../src/server/server.js';

type App = Awaited<ReturnType<typeof makeApp>>;
const open: App[] = [];

async function start(model: TestModelOptions = {}, server: Partial<ServerOptions> = {}): Promise<App> {
  const app = await makeApp(model, server);
  open.push(app);
  return app;
}

afterEach(async () => {
  await Promise.all(open.splice(0).map((app) => app.close()));
});

const URL = '/v1/chat/completions';
const MESSAGES = [{ role: 'user', content: 'hi' }];
/** "Hello" in the qwen3 fixture. */
const HELLO = [39, 68, 327, 78];

async function chat(
  app: App,
  body: Record<string, unknown>,
): Promise<{ status: number; body: Record<string, never>; text: string }> {
  const response = await app.app.inject({
    method: 'POST',
    url: URL,
    payload: { messages: MESSAGES, ...body },
  });
  const isStream = String(response.headers['content-type']).startsWith('text/event-stream');
  return {
    status: response.statusCode,
    body: isStream ? {} : response.json<Record<string, never>>(),
    text: response.body,
  };
}

describe('a whole answer', () => {
  it('has every key OpenAI requires, null where there is nothing', async () => {
    const app = await start({ script: () => HELLO });
    const { status, body } = await chat(app, {});
    expect(status).toBe(200);
    expect(body).toEqual({
      id: expect.stringMatching(/^chatcmpl-[0-9a-f]{32}$/) as string,
      object: 'chat.completion',
      created: expect.any(Number) as number,
      model: 'fake',
      system_fingerprint: 'fdq-9.9.9-wint8-cpu',
      choices: [
        {
          index: 0,
          message: { role: 'assistant', content: 'Hello', refusal: null },
          logprobs: null,
          finish_reason: 'stop',
          stop_reason: null,
        },
      ],
      usage: {
        prompt_tokens: 41,
        completion_tokens: 4,
        total_tokens: 45,
        prompt_tokens_details: { cached_tokens: 0 },
        completion_tokens_details: { reasoning_tokens: 0 },
      },
    });
  });

  it('orders choices by index and counts the prompt once', async () => {
    const app = await start({ script: (_request, choice) => HELLO.slice(choice) });
    const { body } = await chat(app, { n: 3 });
    const { choices, usage } = body as unknown as {
      choices: { index: number; message: { content: string } }[];
      usage: { prompt_tokens: number; completion_tokens: number };
    };
    expect(choices.map(({ index, message }) => [index, message.content])).toEqual([
      [0, 'Hello'],
      [1, 'ello'],
      [2, 'llo'],
    ]);
    expect(usage).toMatchObject({ prompt_tokens: 41, completion_tokens: 9 });
  });

  it('reports logprobs with bytes, and the parts of a character by their bytes', async () => {
    const app = await start();
    const ids = app.model.tokenizer.encode('日', false);
    const split = await start({ script: () => ids });
    const { body } = await chat(split, { logprobs: true, top_logprobs: 2 });
    const { content } = (
      body as unknown as { choices: [{ logprobs: { content: Record<string, unknown>[] } }] }
    ).choices[0].logprobs;
    expect(content.map(({ token }) => token)).toEqual(['bytes:\\xe6', 'bytes:\\x97', 'bytes:\\xa5']);
    expect(content.flatMap(({ bytes }) => bytes)).toEqual([...Buffer.from('日')]);
    expect(content[0]?.['top_logprobs']).toHaveLength(2);
    expect(content[0]?.['logprob']).toBe(
      (content[0]?.['top_logprobs'] as { token: string; logprob: number }[]).find(
        ({ token }) => token === 'bytes:\\xe6',
      )?.logprob,
    );
  });

  it('gives ids and prompt logprobs when asked', async () => {
    const app = await start({ script: () => HELLO });
    const { body } = await chat(app, {
      return_token_ids: true,
      prompt_logprobs: 1,
      return_tokens_as_token_ids: true,
      logprobs: true,
    });
    const answer = body as unknown as {
      prompt_token_ids: number[];
      prompt_logprobs: unknown[];
      choices: [{ token_ids: number[]; logprobs: { content: { token: string }[] } }];
    };
    expect(answer.prompt_token_ids).toHaveLength(41);
    expect(answer.prompt_logprobs).toHaveLength(41);
    expect(answer.prompt_logprobs[0]).toBeNull();
    expect(answer.choices[0].token_ids).toEqual(HELLO);
    expect(answer.choices[0].logprobs.content[0]?.token).toBe('token_id:39');
  });
});

describe('sampling parameters', () => {
  it('come from the request, then the model, then OpenAI', async () => {
    const app = await start({
      script: () => HELLO,
      defaults: { temperature: 0.6, topP: 0.95, topK: 20, maxTokens: 50 },
    });
    await chat(app, { temperature: 0, top_k: -1 });
    const { params } = app.model.engine.requests[0]?.request ?? {};
    expect(params).toMatchObject({
      temperature: 0,
      topP: 0.95,
      topK: 0,
      minP: 0,
      repetitionPenalty: 1,
      maxTokens: 50,
      n: 1,
    });
    expect(params).not.toHaveProperty('logprobs');
    expect(params).not.toHaveProperty('seed');
  });

  it('reach the engine under its names', async () => {
    const app = await start({ script: () => HELLO });
    await chat(app, {
      max_tokens: 9,
      max_completion_tokens: 8,
      min_tokens: 2,
      presence_penalty: 1,
      frequency_penalty: -1,
      repetition_penalty: 1.1,
      logit_bias: { '5': -100 },
      allowed_token_ids: [1, 2],
      bad_words: ['the'],
      stop: 'x',
      stop_token_ids: [7],
      ignore_eos: true,
      include_stop_str_in_output: true,
      skip_special_tokens: false,
      top_p: 0,
      min_p: 0.1,
      priority: -3,
      cache_salt: 'salt',
      user: 'ignored',
      chat_template_kwargs: { enable_thinking: false },
      stop_reason: null,
    });
    const request = app.model.engine.requests[0]?.request;
    expect(request).toMatchObject({ priority: -3, cacheSalt: 'salt' });
    expect(request?.params).toMatchObject({
      maxTokens: 8,
      minTokens: 2,
      presencePenalty: 1,
      frequencyPenalty: -1,
      repetitionPenalty: 1.1,
      logitBias: new Map([[5, -100]]),
      allowedTokenIds: [1, 2],
      stop: ['x'],
      stopTokenIds: [7],
      ignoreEos: true,
      includeStopStrInOutput: true,
      skipSpecialTokens: false,
      minP: 0.1,
    });
    expect(request?.params.topP).toBeGreaterThan(0);
    expect(request?.params.badWords).toContainEqual(app.model.tokenizer.encode('the', false));
    expect(app.model.tokenizer.decode(request?.promptTokenIds ?? [])).toContain('<think>\n\n</think>');
  });

  it('keep all digits of a 64-bit seed', async () => {
    const app = await start({ script: () => HELLO });
    const payload = `{"messages": [{"role": "user", "content": "\\"seed\\": 1"}], "metadata": {"seed": 5}, "seed" : -9223372036854775808}`;
    const response = await app.app.inject({
      method: 'POST',
      url: URL,
      payload,
      headers: { 'content-type': 'application/json' },
    });
    expect(response.statusCode).toBe(200);
    expect(app.model.engine.requests[0]?.request.params.seed).toBe(-9223372036854775808n);
    const over = await app.app.inject({
      method: 'POST',
      url: URL,
      payload: payload.replace('-9223', '-9923'),
      headers: { 'content-type': 'application/json' },
    });
    expect(over.json()).toMatchObject({ error: { param: 'seed' } });
  });

  it('default to the rest of the context', async () => {
    const app = await start({ script: () => HELLO });
    await chat(app, {});
    expect(app.model.engine.requests[0]?.request.params.maxTokens).toBe(256 - 41);
  });
});

const REFUSED: readonly [body: Record<string, unknown>, param: string][] = [
  [{ messages: undefined }, 'messages'],
  [{ messages: [] }, 'messages'],
  [{ messages: [{ role: 'robot', content: 'x' }] }, 'messages[0].role'],
  [{ messages: [{ role: 'user', content: null }] }, 'messages[0].content'],
  [
    {
      messages: [
        {
          role: 'user',
          content: [
            { type: 'text', text: 'a' },
            { type: 'image_url', image_url: {} },
          ],
        },
      ],
    },
    'messages[0].content[1]',
  ],
  [{ messages: [{ role: 'user', content: [{ type: 'input_audio' }] }] }, 'messages[0].content[0]'],
  [{ temperature: -0.1 }, 'temperature'],
  [{ temperature: 2.1 }, 'temperature'],
  [{ temperature: 'NaN' }, 'temperature'],
  [{ top_p: 1.1 }, 'top_p'],
  [{ top_k: 1.5 }, 'top_k'],
  [{ max_tokens: 0 }, 'max_tokens'],
  [{ max_tokens: 1e308 }, 'max_tokens'],
  [{ n: 0 }, 'n'],
  [{ n: 129 }, 'n'],
  [{ best_of: 2 }, 'best_of'],
  [{ min_tokens: 5, max_tokens: 4 }, 'min_tokens'],
  [{ logit_bias: { AI: 1 } }, 'logit_bias.AI'],
  [{ logit_bias: { '512': 1 } }, 'logit_bias.512'],
  [{ logit_bias: { '1': 101 } }, 'logit_bias.1'],
  [{ allowed_token_ids: [512] }, 'allowed_token_ids[0]'],
  [{ stop_token_ids: [-1] }, 'stop_token_ids[0]'],
  [{ stop: Array.from({ length: 17 }, () => 'x') }, 'stop'],
  [{ stop: '' }, 'stop'],
  [{ top_logprobs: 2 }, 'top_logprobs'],
  [{ logprobs: true, top_logprobs: 21 }, 'top_logprobs'],
  [{ logprobs: 3 }, 'logprobs'],
  [{ seed: 1.5 }, 'seed'],
  [{ stream_options: { include_usage: true } }, 'stream_options'],
  [{ stream: true, prompt_logprobs: 1 }, 'prompt_logprobs'],
  [{ continue_final_message: true, add_generation_prompt: true }, 'continue_final_message'],
  [{ chat_template: '{{ 1 }}' }, 'chat_template'],
  [{ chat_template_kwargs: { tokenize: true } }, 'chat_template_kwargs.tokenize'],
  [{ response_format: { type: 'json_object' } }, 'response_format'],
  [{ structured_outputs: { regex: 'a' } }, 'structured_outputs'],
  [{ guided_json: {} }, 'guided_json'],
  [{ tools: [] }, 'tools'],
  [{ tools: [{ type: 'function' }] }, 'tools'],
  [{ tool_choice: 'auto' }, 'tool_choice'],
  [{ functions: [] }, 'functions'],
  [{ use_beam_search: true }, 'use_beam_search'],
  [{ echo: true }, 'echo'],
  [{ include_reasoning: false }, 'include_reasoning'],
  [{ return_metrics: true }, 'return_metrics'],
  [{ documents: [{ text: 'a' }] }, 'documents'],
  [{ length_penalty: 2 }, 'length_penalty'],
  [{ detokenize: false }, 'detokenize'],
];

describe('refusals', () => {
  it.each(REFUSED)('%j names %s', async (body, param) => {
    const app = await start();
    const answer = await chat(app, body);
    expect(answer.status).toBe(400);
    expect(answer.body).toEqual({
      error: {
        message: expect.any(String) as string,
        type: 'invalid_request_error',
        param,
        code: 'invalid_request',
      },
    });
    expect(app.model.engine.requests).toHaveLength(0);
  });

  it('accept values that ask for nothing and fields without effect', async () => {
    const app = await start({ script: () => HELLO });
    const { status } = await chat(app, {
      response_format: { type: 'text' },
      tool_choice: 'none',
      tools: null,
      parallel_tool_calls: true,
      user: 'u',
      metadata: {},
      store: false,
      service_tier: 'auto',
      safety_identifier: 's',
      prompt_cache_key: 'k',
      verbosity: 'low',
      stop: null,
      temperature: null,
      never_heard_of: 1,
    });
    expect(status).toBe(200);
    expect((await app.app.inject('/metrics')).body).toContain('fdq:unknown_request_fields_total 1');
  });

  it('tell how many tokens are too many, in the words clients match', async () => {
    const app = await start();
    const { status, body } = await chat(app, { max_tokens: 300 });
    expect(status).toBe(400);
    expect(body).toMatchObject({
      error: {
        code: 'context_length_exceeded',
        param: 'messages',
        message: expect.stringMatching(
          /^This model's maximum context length is 256 tokens\. However, you requested 341 tokens \(41 in the messages, 300 in the completion\)/,
        ) as string,
      },
    });
    const long = await chat(app, { messages: [{ role: 'user', content: 'x'.repeat(1_000_000) }] });
    expect(long.body).toMatchObject({ error: { code: 'context_length_exceeded' } });
  });

  it('pass the message of a template that refuses', async () => {
    const app = await start({ fixture: 'mistral' });
    const { status, body } = await chat(app, { messages: [{ role: 'assistant', content: 'I start.' }] });
    expect(status).toBe(400);
    expect(JSON.stringify(body)).toContain('user and assistant turns must alternate');
  });
});

describe('messages', () => {
  it('may be parts, assistants without content, and tool results', async () => {
    const app = await start({ script: () => HELLO });
    const { status } = await chat(app, {
      messages: [
        { role: 'developer', content: 'be brief' },
        {
          role: 'user',
          content: [
            { type: 'text', text: 'a' },
            { type: 'text', text: 'b' },
          ],
        },
        {
          role: 'assistant',
          content: null,
          tool_calls: [{ id: 'c', type: 'function', function: { name: 'f', arguments: '{"x":1}' } }],
        },
        { role: 'tool', tool_call_id: 'c', content: '21' },
      ],
    });
    expect(status).toBe(200);
    const prompt = app.model.tokenizer.decode(app.model.engine.requests[0]?.request.promptTokenIds ?? []);
    expect(prompt).toContain('<|im_start|>system\nbe brief');
    expect(prompt).toContain('<|im_start|>user\na\nb<|im_end|>');
    expect(prompt).toContain('"arguments": {"x": 1}');
  });

  it('may leave the last one open', async () => {
    const app = await start({ script: () => HELLO });
    await chat(app, {
      messages: [...MESSAGES, { role: 'assistant', content: 'Well, ' }],
      continue_final_message: true,
    });
    const prompt = app.model.tokenizer.decode(app.model.engine.requests[0]?.request.promptTokenIds ?? []);
    expect(prompt.endsWith('<|im_start|>assistant\nWell, ')).toBe(true);
  });
});

describe('a stream', () => {
  it('is these chunks and nothing else', async () => {
    const app = await start({ script: () => HELLO.slice(0, 2) });
    const { text } = await chat(app, { stream: true });
    const created = /"created":(\d+)/.exec(text)?.[1] as string;
    const id = /"id":"(chatcmpl-[0-9a-f]+)"/.exec(text)?.[1] as string;
    const chunk = (choice: string): string =>
      `data: {"id":"${id}","object":"chat.completion.chunk","created":${created},"model":"fake","system_fingerprint":"fdq-9.9.9-wint8-cpu","choices":[${choice}]}\n\n`;
    expect(text).toBe(
      chunk('{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}') +
        chunk('{"index":0,"delta":{"content":"H"},"logprobs":null,"finish_reason":null}') +
        chunk('{"index":0,"delta":{"content":"e"},"logprobs":null,"finish_reason":null}') +
        chunk('{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop","stop_reason":null}') +
        'data: [DONE]\n\n',
    );
  });

  it('carries usage only when asked, in a last chunk without choices', async () => {
    const app = await start({ script: () => HELLO });
    const { text } = await chat(app, { stream: true, stream_options: { include_usage: true } });
    const events = readEvents(text) as { choices: unknown[]; usage: unknown }[];
    const chunks = events.slice(0, -1);
    expect(chunks.slice(0, -1).every(({ usage }) => usage === null)).toBe(true);
    expect(chunks.at(-1)).toMatchObject({
      choices: [],
      usage: { prompt_tokens: 41, completion_tokens: 4, total_tokens: 45 },
    });
    const continuous = await chat(app, {
      stream: true,
      stream_options: { include_usage: true, continuous_usage_stats: true },
    });
    const counts = (
      readEvents(continuous.text).slice(0, -1) as { usage: { completion_tokens: number } }[]
    ).map(({ usage }) => usage.completion_tokens);
    expect(counts).toEqual([1, 1, 2, 3, 4, 4, 4]);
  });

  it('starts and ends every choice', async () => {
    const app = await start({ script: () => HELLO });
    const { text } = await chat(app, { stream: true, n: 2, return_token_ids: true, logprobs: true });
    const events = readEvents(text).slice(0, -1) as {
      choices: [
        {
          index: number;
          delta: { role?: string };
          token_ids?: number[];
          finish_reason: string | null;
          logprobs: unknown;
        },
      ];
    }[];
    for (const index of [0, 1]) {
      const own = events.map(({ choices }) => choices[0]).filter((choice) => choice.index === index);
      expect(own.filter(({ delta }) => delta.role === 'assistant')).toHaveLength(1);
      expect(own.filter((choice) => choice.finish_reason !== null)).toHaveLength(1);
      expect(own.at(-1)?.finish_reason).toBe('stop');
      expect(own.flatMap(({ token_ids }) => token_ids ?? [])).toEqual(HELLO);
      expect(own[1]?.logprobs).toMatchObject({ content: [{ token: 'H' }] });
    }
  });

  it('reports a failure as an event, then ends', async () => {
    const app = await start({ isManual: true });
    const next = app.model.engine.nextRequest();
    const answer = chat(app, { stream: true });
    const request = await next;
    request.start();
    request.emit([39]);
    request.fail(new Error('kernel exploded at 0xdead'));
    const { text } = await answer;
    expect(readEvents(text).at(-2)).toEqual({
      error: {
        message: expect.not.stringContaining('0xdead') as string,
        type: 'server_error',
        param: null,
        code: 'internal_error',
      },
    });
    expect(text.endsWith('data: [DONE]\n\n')).toBe(true);
  });
});
