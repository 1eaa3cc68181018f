import OpenAI from 'openai';
import { afterEach, describe, expect, it } from 'vitest';
import type { ServerHandle, ServerOptions } from '../../src/server/server.js';
import { makeServer } from '../helpers/test-server.js';
import type { TestModel, TestModelOptions } from '../helpers/test-server.js';

const handles: ServerHandle[] = [];
/** "Hello" in the qwen3 fixture. */
const HELLO = [39, 68, 327, 78];
const MESSAGES: OpenAI.Chat.ChatCompletionMessageParam[] = [{ role: 'user', content: 'hi' }];

async function start(
  model: TestModelOptions = {},
  server: Partial<ServerOptions> = {},
  client: ConstructorParameters<typeof OpenAI>[0] = {},
): Promise<{ client: OpenAI; handle: ServerHandle; model: TestModel }> {
  const made = await makeServer({ script: () => HELLO, ...model }, { apiKeys: ['secret'], ...server });
  handles.push(made.handle);
  return { ...made, client: new OpenAI({ apiKey: 'secret', baseURL: `${made.handle.url}/v1`, ...client }) };
}

afterEach(async () => {
  await Promise.all(handles.splice(0).map((handle) => handle.close()));
});

describe('the official client', () => {
  it('chats', async () => {
    const { client } = await start();
    const { data, request_id } = await client.chat.completions
      .create({ model: 'fake', messages: MESSAGES, logprobs: true, top_logprobs: 1 })
      .withResponse();
    expect(data.choices[0]?.message.content).toBe('Hello');
    expect(data.choices[0]?.finish_reason).toBe('stop');
    expect(data.choices[0]?.logprobs?.content?.[0]?.bytes).toEqual([72]);
    expect(data.usage?.total_tokens).toBe(45);
    expect(request_id).toMatch(/^req-/);
  });

  it.each(['/v1', '/v1/', '//v1/'])('streams over the base URL %s', async (path) => {
    const { client, handle } = await start();
    const over = client.withOptions({ baseURL: handle.url + path });
    const stream = await over.chat.completions.create({
      model: 'fake',
      messages: MESSAGES,
      stream: true,
      stream_options: { include_usage: true },
    });
    let text = '';
    const finishes: string[] = [];
    let usage: OpenAI.CompletionUsage | null | undefined;
    for await (const chunk of stream) {
      text += chunk.choices[0]?.delta.content ?? '';
      if (chunk.choices[0]?.finish_reason) finishes.push(chunk.choices[0].finish_reason);
      if (chunk.choices.length === 0) usage = chunk.usage;
    }
    expect(text).toBe('Hello');
    expect(finishes).toEqual(['stop']);
    expect(usage).toMatchObject({
      prompt_tokens: 41,
      completion_tokens: 4,
      prompt_tokens_details: { cached_tokens: 0 },
    });
  });

  it('accumulates a stream with its helper', async () => {
    const { client } = await start();
    const runner = client.chat.completions.stream({ model: 'fake', messages: MESSAGES, n: 2 });
    const final = await runner.finalChatCompletion();
    expect(final.choices.map((choice) => choice.message.content)).toEqual(['Hello', 'Hello']);
  });

  it('completes, lists models and gets one', async () => {
    const { client } = await start();
    const completion = await client.completions.create({
      model: 'fake',
      prompt: ['a', 'b'],
      logprobs: 1,
      echo: true,
      max_tokens: 8,
    });
    expect(completion.choices.map(({ text }) => text)).toEqual(['aHello', 'bHello']);
    expect(completion.choices[0]?.logprobs?.token_logprobs?.[0]).toBeNull();
    const names = [];
    for await (const model of client.models.list()) names.push(model.id);
    expect(names).toEqual(['fake', 'org/alias']);
    expect((await client.models.retrieve('org/alias')).id).toBe('org/alias');
  });

  it('gets its own error classes with code and param', async () => {
    const { client } = await start();
    const create = (body: object): Promise<unknown> =>
      client.chat.completions.create({ model: 'fake', messages: MESSAGES, ...body });
    await expect(create({ temperature: 3 })).rejects.toMatchObject({
      constructor: OpenAI.BadRequestError,
      status: 400,
      param: 'temperature',
      type: 'invalid_request_error',
    });
    await expect(create({ max_tokens: 1000 })).rejects.toMatchObject({
      code: 'context_length_exceeded',
      message: expect.stringContaining("This model's maximum context length is 256 tokens") as string,
    });
    await expect(create({ model: 'nope' })).rejects.toMatchObject({
      constructor: OpenAI.NotFoundError,
      code: 'model_not_found',
      requestID: expect.stringMatching(/^req-/) as string,
    });
    await expect(create({ tools: [{ type: 'function', function: { name: 'f' } }] })).rejects.toMatchObject({
      param: 'tools',
    });
    await expect(client.withOptions({ apiKey: 'wrong' }).models.list()).rejects.toMatchObject({
      constructor: OpenAI.AuthenticationError,
      code: 'invalid_api_key',
    });
  });

  it('throws what a stream reports', async () => {
    const { client, model } = await start({ isManual: true });
    const next = model.engine.nextRequest();
    const stream = await client.chat.completions.create({ model: 'fake', messages: MESSAGES, stream: true });
    const request = await next;
    request.start();
    request.emit([39]);
    request.fail(new Error('broken'));
    const read = async (): Promise<void> => {
      for await (const chunk of stream) expect(chunk.id).toMatch(/^chatcmpl-/);
    };
    await expect(read()).rejects.toMatchObject({ code: 'internal_error' });
  });

  it('aborts a stream it no longer reads', async () => {
    const { client, model } = await start({ isManual: true });
    const next = model.engine.nextRequest();
    const stream = await client.chat.completions.create({ model: 'fake', messages: MESSAGES, stream: true });
    const request = await next;
    request.start();
    request.emit([39]);
    for await (const chunk of stream) {
      expect(chunk.choices[0]?.delta.role).toBe('assistant');
      break;
    }
    await request.aborted;
  });

  it('tries again when the server is full, and not when it failed', async () => {
    const { client, model } = await start({ isManual: true, maxQueued: 1 });
    const firstNext = model.engine.nextRequest();
    const first = client.chat.completions.create({ model: 'fake', messages: MESSAGES });
    const running = await firstNext;
    const statuses: number[] = [];
    const retrying = client.withOptions({
      maxRetries: 3,
      fetch: async (url, init) => {
        const response = await fetch(url, init);
        statuses.push(response.status);
        if (response.status === 429) {
          running.start();
          running.emit(HELLO, 0, 'stop');
        }
        return response;
      },
    });
    const secondNext = model.engine.nextRequest();
    const second = retrying.chat.completions.create({ model: 'fake', messages: MESSAGES });
    second.catch(() => undefined);
    await first;
    (await secondNext).fail(new Error('broken'));
    await expect(second).rejects.toMatchObject({ status: 500 });
    expect(statuses).toEqual([429, 500]);
  });
});

/** Reads a stream as strictly as clients that validate every chunk do (after @ai-sdk/openai-compatible). */
function checkStrictChunk(chunk: Record<string, unknown>): void {
  expect(typeof chunk['id']).toBe('string');
  expect(Number.isInteger(chunk['created'])).toBe(true);
  expect(typeof chunk['model']).toBe('string');
  for (const choice of chunk['choices'] as Record<string, unknown>[]) {
    expect(Number.isInteger(choice['index'])).toBe(true);
    const { role, content } = choice['delta'] as Record<string, unknown>;
    expect([undefined, '', 'assistant']).toContain(role);
    expect(['string', 'undefined']).toContain(typeof content);
    expect([null, 'stop', 'length', 'tool_calls', 'content_filter']).toContain(choice['finish_reason']);
  }
}

describe('other clients', () => {
  it('that check every chunk find what they expect', async () => {
    const { handle } = await start({}, { apiKeys: [] });
    const response = await fetch(`${handle.url}/v1/chat/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ messages: MESSAGES, stream: true, stream_options: { include_usage: true } }),
    });
    const blocks = (await response.text()).split('\n\n');
    expect(blocks.pop()).toBe('');
    expect(blocks.pop()).toBe('data: [DONE]');
    for (const block of blocks)
      checkStrictChunk(JSON.parse(block.slice('data: '.length)) as Record<string, unknown>);
    expect(blocks.length).toBeGreaterThan(4);
  });
});
