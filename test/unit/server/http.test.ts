import { afterEach, describe, expect, it } from 'vitest';
import type { ServerLogger } from '../../../src/server/request-log.js';
import type { ServerOptions } from '../../../src/server/server.js';
import { makeApp } from '../../helpers/test-server.js';

type App = Awaited<ReturnType<typeof makeApp>>;
const open: App[] = [];

async function start(server: Partial<ServerOptions> = {}): Promise<App> {
  const app = await makeApp({ script: () => [39, 68] }, server);
  open.push(app);
  return app;
}

afterEach(async () => {
  await Promise.all(open.splice(0).map((app) => app.close()));
});

const URL = '/v1/chat/completions';
const JSON_TYPE = { 'content-type': 'application/json' };
const GOOD = { messages: [{ role: 'user', content: 'hi' }] };

describe('bodies', () => {
  it.each([
    ['nothing', '', JSON_TYPE, 400],
    ['broken JSON', '{"messages": [', JSON_TYPE, 400],
    ['NaN', '{"temperature": NaN}', JSON_TYPE, 400],
    ['an array', '[]', JSON_TYPE, 400],
    ['a string', '"x"', JSON_TYPE, 400],
    ['null', 'null', JSON_TYPE, 400],
    ['bytes that are not UTF-8', Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d]), JSON_TYPE, 400],
    ['nesting without end', '['.repeat(100_000), JSON_TYPE, 400],
    [
      'nesting inside a message',
      `{"messages": [{"role": "user", "content": "x", "y": ${'['.repeat(100_000)}${']'.repeat(100_000)}}]}`,
      JSON_TYPE,
      400,
    ],
    ['a form', 'a=b', { 'content-type': 'application/x-www-form-urlencoded' }, 415],
    ['text', '{}', { 'content-type': 'text/plain' }, 415],
    ['no type', '{}', {}, 415],
    ['something compressed', '{}', { ...JSON_TYPE, 'content-encoding': 'gzip' }, 415],
  ] as const)('of %s are refused', async (_name, payload, headers, status) => {
    const { app } = await start();
    const answer = await app.inject({ method: 'POST', url: URL, payload, headers });
    expect(answer.statusCode).toBe(status);
    expect(answer.json()).toEqual({
      error: {
        message: expect.any(String) as string,
        type: 'invalid_request_error',
        param: null,
        code: expect.any(String) as string,
      },
    });
  });

  it('may have a charset', async () => {
    const { app } = await start();
    const headers = { 'content-type': 'application/json; charset=utf-8' };
    expect(
      (await app.inject({ method: 'POST', url: URL, payload: JSON.stringify(GOOD), headers })).statusCode,
    ).toBe(200);
  });

  it('have a largest size', async () => {
    const { app } = await start({ limits: { bodyLimitBytes: 1000 } });
    const answer = await app.inject({
      method: 'POST',
      url: URL,
      payload: { ...GOOD, user: 'x'.repeat(1000) },
    });
    expect(answer.statusCode).toBe(413);
    expect(answer.json()).toMatchObject({ error: { code: 'payload_too_large' } });
    const wide = await start();
    expect(
      (await wide.app.inject({ method: 'POST', url: URL, payload: { ...GOOD, user: 'x'.repeat(8 << 20) } }))
        .statusCode,
    ).toBe(200);
  });

  it('set no prototypes', async () => {
    const { app } = await start();
    const payload =
      '{"messages":[{"role":"user","content":"x","__proto__":{"polluted":1}}],"__proto__":{"n":5},"logit_bias":{"__proto__":{"a":1}}}';
    await app.inject({ method: 'POST', url: URL, payload, headers: JSON_TYPE });
    expect(({} as Record<string, unknown>)['polluted']).toBeUndefined();
    expect(({} as Record<string, unknown>)['n']).toBeUndefined();
  });
});

describe('routes', () => {
  it('that do not exist are named', async () => {
    const { app } = await start();
    const answer = await app.inject('/v1/embeddings');
    expect(answer.statusCode).toBe(404);
    expect(answer.json()).toMatchObject({
      error: { code: 'not_found', message: expect.stringContaining('/v1/chat/completions') as string },
    });
  });

  it('tell which methods they have', async () => {
    const { app } = await start();
    for (const [method, url, allow] of [
      ['GET', URL, 'POST, OPTIONS'],
      ['DELETE', '/v1/models', 'GET, HEAD, OPTIONS'],
      ['POST', '/v1/models/fake', 'GET, HEAD, OPTIONS'],
    ] as const) {
      const answer = await app.inject({ method, url });
      expect(answer.statusCode).toBe(405);
      expect(answer.headers.allow).toBe(allow);
      expect(answer.json()).toMatchObject({ error: { code: 'method_not_allowed' } });
    }
  });

  it('of models know every served name', async () => {
    const { app } = await start();
    const list = (await app.inject('/v1/models')).json<{ object: string; data: Record<string, unknown>[] }>();
    expect(list.object).toBe('list');
    expect(list.data[0]).toMatchObject({
      id: 'fake',
      object: 'model',
      owned_by: 'fdq',
      root: 'fake',
      max_model_len: 256,
    });
    expect((await app.inject('/v1/models/org/alias')).json()).toMatchObject({ id: 'org/alias' });
    expect((await app.inject('/v1/models/org%2Falias')).json()).toMatchObject({ id: 'org/alias' });
    const unknown = await app.inject({ method: 'POST', url: URL, payload: { ...GOOD, model: 'gpt-4' } });
    expect(unknown.statusCode).toBe(404);
    expect(unknown.json()).toMatchObject({
      error: {
        message: expect.stringMatching(/^The model `gpt-4` does not exist\..*fake, org\/alias/) as string,
        param: 'model',
        code: 'model_not_found',
      },
    });
    expect(
      (await app.inject({ method: 'POST', url: URL, payload: { ...GOOD, model: 'org/alias' } })).json(),
    ).toMatchObject({ model: 'org/alias' });
  });

  it('translate text to ids and back', async () => {
    const { app, model } = await start();
    const post = (url: string, payload: Record<string, unknown>): Promise<Record<string, unknown>> =>
      app.inject({ method: 'POST', url, payload }).then((answer) => answer.json<Record<string, unknown>>());
    const encoded = await post('/tokenize', {
      prompt: 'Hello',
      return_token_strs: true,
      add_special_tokens: false,
    });
    expect(encoded).toEqual({
      count: 4,
      max_model_len: 256,
      tokens: [39, 68, 327, 78],
      token_strs: ['H', 'e', 'll', 'o'],
    });
    expect(await post('/detokenize', { tokens: encoded['tokens'] })).toEqual({ prompt: 'Hello' });
    expect(await post('/detokenize', { tokens: [] })).toEqual({ prompt: '' });
    const chat = await post('/tokenize', { messages: GOOD.messages });
    expect(model.tokenizer.decode(chat['tokens'] as number[])).toMatch(/<\|im_start\|>assistant\n$/);
    expect(chat['token_strs']).toBeNull();
    for (const [url, payload, param] of [
      ['/tokenize', {}, 'prompt'],
      ['/tokenize', { prompt: 'x', messages: GOOD.messages }, 'messages'],
      ['/detokenize', {}, 'tokens'],
      ['/detokenize', { tokens: [512] }, 'tokens[0]'],
      ['/detokenize', { tokens: ['a'] }, 'tokens[0]'],
    ] as const) {
      expect(await post(url, payload)).toMatchObject({ error: { param } });
    }
  });

  it('give harnesses what they need of the tokenizer', async () => {
    const { app } = await start();
    expect((await app.inject('/tokenizer_info')).json()).toMatchObject({
      eos_token: '<|im_end|>',
      bos_token: null,
      pad_token: '<|endoftext|>',
      chat_template: expect.stringContaining('im_start') as string,
    });
    expect((await app.inject('/version')).json()).toEqual({
      version: '9.9.9',
      onnxruntime: '1.30.0',
      commit: null,
      isa: 'avx2',
    });
  });
});

describe('request ids and logs', () => {
  it('echo a clean id and drop what could break a header or a line', async () => {
    const { app } = await start();
    expect(
      (await app.inject({ url: '/health', headers: { 'x-request-id': 'abc-123' } })).headers['x-request-id'],
    ).toBe('abc-123');
    const dirty = await app.inject({
      url: '/health',
      headers: { 'x-request-id': 'a\u001b[31m b\u202e' + 'c'.repeat(500) },
    });
    expect(dirty.headers['x-request-id']).toMatch(/^a31mbc{123}$/);
    expect((await app.inject('/nothing')).headers['x-request-id']).toMatch(/^req-[0-9a-f-]{36}$/);
  });

  it.each(['/v1/models/%zz', `/v1/models/${'a'.repeat(3000)}`, '/%'])('are there for %s', async (url) => {
    const { app } = await start();
    const response = await app.inject({ url });
    expect(response.statusCode).toBeGreaterThanOrEqual(400);
    expect(response.headers['x-request-id']).toMatch(/^req-[0-9a-f-]{36}$/);
  });

  it('count and log what is refused before it is read', async () => {
    const lines: Record<string, unknown>[] = [];
    const note = (fields: Readonly<Record<string, unknown>>): void => void lines.push(fields);
    const logger: ServerLogger = { debug: note, info: note, warn: note, error: note };
    const { app, context } = await start({ logger, apiKeys: ['secret'] });
    expect((await app.inject('/v1/models')).statusCode).toBe(401);
    expect((await app.inject({ url: '/health', headers: { host: 'evil.example' } })).statusCode).toBe(403);
    expect(lines).toMatchObject([
      { status: 401, code: 'unauthorized' },
      { status: 403, code: 'forbidden' },
    ]);
    const text = await context.metrics.render();
    expect(text).toContain('fdq:http_requests_total{route="/v1/models",status="401"} 1');
    expect(text).toContain('fdq:request_failures_total{code="forbidden"} 1');
  });

  it('write one line per request without what was said', async () => {
    const lines: [Record<string, unknown>, string][] = [];
    const note = (fields: Readonly<Record<string, unknown>>, message: string): void =>
      void lines.push([fields, message]);
    const logger: ServerLogger = { debug: note, info: note, warn: note, error: note };
    const { app } = await start({ logger });
    const secret = 'CANARY-PROMPT';
    await app.inject({
      method: 'POST',
      url: URL,
      payload: { messages: [{ role: 'user', content: secret }] },
    });
    await app.inject({
      method: 'POST',
      url: URL,
      payload: { messages: [{ role: secret, content: secret }] },
    });
    await app.inject(`/${secret}`);
    expect(lines).toHaveLength(3);
    expect(lines[0]).toEqual([
      {
        id: expect.any(String) as string,
        method: 'POST',
        path: URL,
        status: 200,
        stream: false,
        tokens_in: expect.any(Number) as number,
        tokens_out: 2,
        ttft_ms: expect.any(Number) as number,
        total_ms: expect.any(Number) as number,
      },
      'request',
    ]);
    expect(lines[1]?.[0]).toMatchObject({ status: 400, code: 'invalid_request' });
    expect(JSON.stringify(lines)).not.toContain(secret);
  });
});
