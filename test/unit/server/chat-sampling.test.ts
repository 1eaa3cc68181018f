import { afterEach, describe, expect, it } from 'vitest';
import { HELLO, URL, chat, open, start } from './chat-fixture.js';

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

afterEach(async () => {
  await Promise.all(open.splice(0).map((app) => app.close()));
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
