import { afterEach, describe, expect, it } from 'vitest';
import { HttpClient } from '../../../../src/bench/client/http-client.js';
import type { PromptRequest } from '../../../../src/bench/client/record.js';
import { Requester, type RequesterOptions } from '../../../../src/bench/client/requester.js';
import {
  answerAll,
  fakeOpenAi,
  sendEvent,
  startEvents,
  textEvent,
  usageEvent,
  type FakeCall,
} from '../../../helpers/fake-openai.js';

const ROUTE = '/v1/completions';
const REQUEST: PromptRequest = { prompt: 'hello', inputTokens: null, maxTokens: 3 };
/** Of a service that no machine runs; a port that was free a moment ago may be somebody's by now. */
const NOBODY = new URL('http://127.0.0.1:1');

const clients: HttpClient[] = [];
afterEach(() => clients.splice(0).forEach((client) => client.close()));

function requester(url: URL, changes: Partial<RequesterOptions> & { readonly timeoutSeconds?: number } = {}) {
  const { timeoutSeconds = 30, ...options } = changes;
  const client = new HttpClient({ url, headers: { 'x-test': 'yes' }, timeoutSeconds, insecure: false });
  clients.push(client);
  return new Requester({
    client,
    isChat: false,
    endpoint: ROUTE,
    model: 'fake',
    ignoreEos: true,
    extraBody: {},
    maxRetries: 0,
    now: () => performance.now(),
    ...options,
  });
}

const serve = async (route: (call: FakeCall) => void | Promise<void>) => fakeOpenAi({ [ROUTE]: route });

function sendError({ response }: FakeCall, status: number, headers: Record<string, string> = {}): void {
  response
    .writeHead(status, { 'content-type': 'application/json', ...headers })
    .end(JSON.stringify({ error: { message: `status ${status}`, type: 'test' } }));
}

describe('Requester', () => {
  it('records the times at which the server wrote', async () => {
    const written: number[] = [];
    const noted: number[] = [];
    const write = (call: FakeCall, event: unknown): void => {
      written.push(performance.now());
      sendEvent(call, event);
    };
    // Each chunk is written when the client has seen the one before.
    let seen = (): void => undefined;
    let count = 0;
    const now = (): number => {
      if (count++ > 0) seen();
      return performance.now();
    };
    const server = await serve(async (call) => {
      startEvents(call);
      for (const text of ['a', 'b', 'c']) {
        const isSeen = new Promise<void>((resolve) => (seen = resolve));
        write(call, textEvent(text, text === 'c' ? 'length' : null));
        await isSeen;
        noted.push(performance.now());
      }
      sendEvent(call, usageEvent(4, 3));
      sendEvent(call, '[DONE]');
      call.response.end();
    });
    const record = await requester(server.url, { now }).send(REQUEST, 12);
    expect(record).toMatchObject({ outcome: 'ok', text: 'abc', scheduledMs: 12, retries: 0 });
    expect(record.usage).toEqual({ inputTokens: 4, outputTokens: 3 });
    expect(record.chunksMs).toHaveLength(3);
    record.chunksMs.forEach((at, i) => {
      expect(at).toBeGreaterThanOrEqual(written[i]!);
      expect(at).toBeLessThanOrEqual(noted[i]!);
    });
    expect(record.sentMs).toBeLessThan(written[0]!);
    expect(record.endMs).toBe(record.chunksMs[2]);
  });

  it('sends a completion with what was asked for, and takes fields out that are null', async () => {
    const server = await serve(answerAll);
    const extraBody = { temperature: 0, stream_options: null };
    await requester(server.url, { extraBody }).send(REQUEST, null);
    await requester(server.url, { ignoreEos: false }).send({ ...REQUEST, prompt: [1, 2] }, null);
    expect(server.calls.map(({ body }) => body)).toEqual([
      { model: 'fake', prompt: 'hello', max_tokens: 3, stream: true, ignore_eos: true, temperature: 0 },
      {
        model: 'fake',
        prompt: [1, 2],
        max_tokens: 3,
        stream: true,
        stream_options: { include_usage: true },
      },
    ]);
    expect(server.calls[0]?.request.headers).toMatchObject({
      'x-test': 'yes',
      'content-type': 'application/json',
    });
  });

  it('sends text as a chat message, and messages as they are', () => {
    const chat = requester(NOBODY, { isChat: true });
    const messages = [{ role: 'system', content: 'be brief' }];
    expect(chat.body(REQUEST)).toMatchObject({
      messages: [{ role: 'user', content: 'hello' }],
      max_completion_tokens: 3,
    });
    expect(chat.body({ ...REQUEST, prompt: messages })['messages']).toBe(messages);
  });

  it.each<[string, (call: FakeCall) => void]>([
    ['status 500', (call) => sendError(call, 500)],
    ['status 429', (call) => sendError(call, 429, { 'retry-after': '0' })],
    [
      'not_streamed',
      ({ response }) => void response.writeHead(200, { 'content-type': 'application/json' }).end('{}'),
    ],
    ['reset', ({ response }) => void response.destroy()],
    [
      'reset',
      (call) => {
        startEvents(call);
        sendEvent(call, textEvent('a'));
        call.response.write(': last words', () => call.response.destroy());
      },
    ],
    [
      'truncated',
      (call) => {
        startEvents(call);
        sendEvent(call, textEvent('a'));
        call.response.end();
      },
    ],
    [
      'stream_error',
      (call) => {
        startEvents(call);
        sendEvent(call, { error: { message: 'died' } });
        call.response.end();
      },
    ],
  ])('names a failure: %s', async (kind, answer) => {
    const server = await serve(answer);
    const record = await requester(server.url).send(REQUEST, null);
    expect(record.outcome).toMatchObject({ kind });
    expect(record.endMs).toBeNull();
    expect(server.calls).toHaveLength(1);
  });

  it('names refused connections and time that ran out', async () => {
    expect((await requester(NOBODY).send(REQUEST, null)).outcome).toMatchObject({ kind: 'refused' });
    const silent = await serve(() => undefined);
    const record = await requester(silent.url, { timeoutSeconds: 0.05 }).send(REQUEST, null);
    expect(record.outcome).toEqual({ kind: 'timeout', message: 'No end of the answer within 0.05 s.' });
  });

  it('has the message of the server', async () => {
    const server = await serve((call) => sendError(call, 400));
    const record = await requester(server.url).send(REQUEST, null);
    expect(record.outcome).toEqual({ kind: 'status 400', message: 'status 400' });
  });

  it.each<[string, (call: FakeCall) => void, number]>([
    ['503 with Retry-After', (call) => sendError(call, 503, { 'retry-after': '7' }), 7000],
    ['429 with Retry-After', (call) => sendError(call, 429, { 'retry-after': '2' }), 2000],
    ['a connection lost before any answer', ({ response }) => void response.destroy(), 100],
  ])('sends again after %s', async (_, refuse, waitMs) => {
    const waits: number[] = [];
    const wait = async (ms: number): Promise<void> => void waits.push(ms);
    const server = await serve((call) => (call.index < 2 ? refuse(call) : answerAll(call)));
    const record = await requester(server.url, { maxRetries: 3, wait }).send(REQUEST, null);
    expect(record).toMatchObject({ outcome: 'ok', retries: 2 });
    expect(waits[0]).toBe(waitMs);
    expect(waits).toHaveLength(2);
  });

  it('understands a date in Retry-After, and waits a minute at most', async () => {
    const waits: number[] = [];
    const wait = async (ms: number): Promise<void> => void waits.push(ms);
    const dates = [new Date(Date.now() + 20_000).toUTCString(), '86400'];
    const server = await serve((call) => {
      const date = dates[call.index];
      if (date === undefined) answerAll(call);
      else sendError(call, 503, { 'retry-after': date });
    });
    await requester(server.url, { maxRetries: 2, wait }).send(REQUEST, null);
    expect(waits[0]).toBeGreaterThan(10_000);
    expect(waits[0]).toBeLessThanOrEqual(20_000);
    expect(waits[1]).toBe(60_000);
  });

  it.each<[string, (call: FakeCall) => void]>([
    ['500', (call) => sendError(call, 500, { 'retry-after': '0' })],
    ['503 without Retry-After', (call) => sendError(call, 503)],
    [
      'a stream that broke off',
      (call) => {
        startEvents(call);
        sendEvent(call, textEvent('a'));
        call.response.end();
      },
    ],
  ])('does not send again after %s', async (_, fail) => {
    const server = await serve(fail);
    const record = await requester(server.url, { maxRetries: 3 }).send(REQUEST, null);
    expect(record.retries).toBe(0);
    expect(server.calls).toHaveLength(1);
  });

  it('gives up after the last retry with what went wrong', async () => {
    const wait = (): Promise<void> => Promise.resolve();
    const server = await serve((call) => sendError(call, 503, { 'retry-after': '0' }));
    const record = await requester(server.url, { maxRetries: 2, wait }).send(REQUEST, null);
    expect(record).toMatchObject({ retries: 2, outcome: { kind: 'status 503' } });
    expect(server.calls).toHaveLength(3);
  });

  it('is ended by its signal, also before it is sent', async () => {
    const controller = new AbortController();
    const server = await serve((call) => {
      startEvents(call);
      sendEvent(call, textEvent('a'));
      call.request.socket.once('close', () => call.response.end());
      controller.abort();
    });
    const sending = requester(server.url, { maxRetries: 5 });
    expect((await sending.send(REQUEST, null, controller.signal)).outcome).toBe('aborted');
    expect((await sending.send(REQUEST, null, controller.signal)).outcome).toBe('aborted');
    expect(server.calls).toHaveLength(1);
  });

  it('keeps connections, and takes another one when a kept one was closed meanwhile', async () => {
    const server = await serve((call) => {
      // The first two answers share a connection; it is cut while the third request is on its way.
      if (call.index === 2) call.request.socket.destroy();
      else answerAll(call);
    });
    const sending = requester(server.url);
    for (let i = 0; i < 3; i++) expect((await sending.send(REQUEST, null)).outcome).toBe('ok');
    const ports = server.calls.map(({ request }) => request.socket.remotePort);
    expect(ports[0]).toBe(ports[1]);
    expect(server.calls).toHaveLength(4);
  });
});
