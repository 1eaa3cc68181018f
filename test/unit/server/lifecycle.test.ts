import { connect } from 'node:net';
import type { Socket } from 'node:net';
import { once } from 'node:events';
import { afterEach, describe, expect, it } from 'vitest';
import { startServer } from '../../../src/server/server.js';
import type { ServerHandle, ServerOptions } from '../../../src/server/server.js';
import { eventually } from '../../helpers/eventually.js';
import { BASE_OPTIONS, makeModel, makeServer, readEvents } from '../../helpers/test-server.js';
import type { TestModel, TestModelOptions } from '../../helpers/test-server.js';

const handles: ServerHandle[] = [];
const sockets: Socket[] = [];

async function start(
  model: TestModelOptions = {},
  server: Partial<ServerOptions> = {},
): Promise<{ handle: ServerHandle; model: TestModel }> {
  const made = await makeServer(model, server);
  handles.push(made.handle);
  return made;
}

afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy();
  await Promise.all(handles.splice(0).map((handle) => handle.close()));
});

const CHAT = { messages: [{ role: 'user', content: 'hi' }] };

function post(handle: ServerHandle, body: unknown, init: RequestInit = {}): Promise<Response> {
  return fetch(`${handle.url}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
    ...init,
  });
}

/** Waits for the metric that counts a finished request, which is written when its connection closed. */
async function failures(handle: ServerHandle, code: string): Promise<string> {
  for (;;) {
    const line = (await handle.metrics.render())
      .split('\n')
      .find((one) => one.startsWith(`fdq:request_failures_total{code="${code}"}`));
    if (line !== undefined) return line;
    await new Promise((resolve) => setImmediate(resolve));
  }
}

describe('while loading', () => {
  it('the port is open, probes tell the truth and requests are to be sent again', async () => {
    const handle = await startServer(BASE_OPTIONS);
    handles.push(handle);
    handle.setProgress('quantize', 0.42);
    const health = await fetch(`${handle.url}/health`);
    expect(health.status).toBe(503);
    expect(await health.json()).toEqual({ status: 'loading', step: 'quantize', progress: 0.42 });
    expect((await fetch(`${handle.url}/live`)).status).toBe(200);
    expect((await fetch(`${handle.url}/v1/models`)).status).toBe(200);
    const refused = await post(handle, CHAT);
    expect(refused.status).toBe(503);
    expect(Number(refused.headers.get('retry-after'))).toBeGreaterThan(0);
    expect(await refused.json()).toMatchObject({
      error: { code: 'not_ready', message: expect.stringContaining('42 %') as string },
    });

    handle.setReady(await makeModel({ script: () => [39] }));
    expect(await (await fetch(`${handle.url}/health`)).json()).toEqual({ status: 'ok' });
    expect((await fetch(`${handle.url}/ping`, { method: 'POST' })).status).toBe(200);
    expect((await post(handle, CHAT)).status).toBe(200);
  });
});

describe('a log of probes', () => {
  it('has those that come while the model loads at debug, and every other failure as a warning', async () => {
    const lines: string[] = [];
    let told: () => void = () => undefined;
    const note =
      (level: string) =>
      ({ path, status }: Readonly<Record<string, unknown>>): void => {
        lines.push(`${level} ${String(path)} ${String(status)}`);
        if (lines.length === 5) told();
      };
    const logger = { debug: note('debug'), info: note('info'), warn: note('warn'), error: note('error') };
    const all = new Promise<void>((resolve) => (told = resolve));
    const handle = await startServer({ ...BASE_OPTIONS, logger });
    handles.push(handle);
    await fetch(`${handle.url}/health`);
    await fetch(`${handle.url}/ping`);
    await post(handle, CHAT);
    handle.setDead();
    await fetch(`${handle.url}/health`);
    await fetch(`${handle.url}/live`);
    await all;
    expect(lines.sort()).toEqual([
      'debug /health 503',
      'debug /ping 503',
      'info /live 200',
      'warn /health 503',
      'warn /v1/chat/completions 503',
    ]);
  });
});

describe('a client that leaves', () => {
  it.each([
    ['queued', false],
    ['prefill', false],
    ['decode', false],
    ['queued', true],
    ['prefill', true],
    ['decode', true],
  ] as const)('frees the engine while %s (stream: %s)', async (phase, stream) => {
    const { handle, model } = await start({ isManual: true });
    const next = model.engine.nextRequest();
    const controller = new AbortController();
    const answer = post(handle, { ...CHAT, stream }, { signal: controller.signal });
    answer.catch(() => undefined);
    const request = await next;
    if (phase !== 'queued') request.start();
    if (phase === 'decode') request.emit([39]);
    if (stream) {
      const response = await answer;
      if (phase === 'decode') await response.body?.getReader().read();
    }
    controller.abort();
    await request.aborted;
    expect(await failures(handle, 'aborted')).toMatch(/ 1$/);
    await eventually(() => expect(handle.inFlight).toBe(0));
  });

  it('leaves the others alone', async () => {
    const { handle, model } = await start({ isManual: true });
    const firstNext = model.engine.nextRequest();
    const controller = new AbortController();
    const leaving = post(handle, CHAT, { signal: controller.signal }).catch(() => 'left');
    const first = await firstNext;
    const secondNext = model.engine.nextRequest();
    const staying = post(handle, CHAT);
    const second = await secondNext;
    controller.abort();
    expect(await leaving).toBe('left');
    await first.aborted;
    second.start();
    second.emit([39, 68], 0, 'stop');
    expect((await staying).status).toBe(200);
    expect(second.signal?.aborted).toBe(false);
  });
});

describe('streams', () => {
  it('send headers and comments before the first token', async () => {
    const { handle, model } = await start({ isManual: true }, { streamKeepAliveMs: 5 });
    const next = model.engine.nextRequest();
    const response = await post(handle, { ...CHAT, stream: true });
    expect(response.headers.get('content-type')).toBe('text/event-stream; charset=utf-8');
    expect(response.headers.get('cache-control')).toBe('no-cache');
    expect(response.headers.get('x-accel-buffering')).toBe('no');
    expect(response.headers.get('x-request-id')).toMatch(/^req-/);
    const reader = (response.body as ReadableStream<Uint8Array>)
      .pipeThrough(new TextDecoderStream())
      .getReader();
    expect((await reader.read()).value).toMatch(/^: keep-alive\n\n/);
    const request = await next;
    request.start();
    request.emit([39], 0, 'stop');
    let text = '';
    for (let part = await reader.read(); !part.done; part = await reader.read()) text += part.value;
    expect(readEvents(text).at(-1)).toBe('[DONE]');
  });

  it('drop a reader that does not read, and only that one', async () => {
    const { handle, model } = await start(
      { isManual: true, info: { maxModelLen: 1_000_000 } },
      { streamBufferBytes: 64 << 10 },
    );
    const next = model.engine.nextRequest();
    const socket = connect(handle.port, '127.0.0.1');
    sockets.push(socket);
    await once(socket, 'connect');
    socket.pause();
    const body = JSON.stringify({ ...CHAT, stream: true });
    socket.write(
      `POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body}`,
    );
    const stuck = await next;
    stuck.start();
    for (let i = 0; i < 200_000 && stuck.signal?.aborted === false; i++) {
      stuck.emit([39]);
      if (i % 100 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    expect(stuck.signal?.aborted).toBe(true);

    const otherNext = model.engine.nextRequest();
    const other = post(handle, { ...CHAT, stream: true });
    const request = await otherNext;
    request.start();
    request.emit([39], 0, 'stop');
    expect(await (await other).text()).toContain('[DONE]');
  });
});

describe('overload', () => {
  it('is a 429 with a time to retry, streamed or not', async () => {
    const { handle, model } = await start({ isManual: true, maxQueued: 1 });
    const next = model.engine.nextRequest();
    const running = post(handle, CHAT);
    const request = await next;
    for (const stream of [false, true]) {
      const refused = await post(handle, { ...CHAT, stream });
      expect(refused.status).toBe(429);
      expect(refused.headers.get('retry-after')).toBe('1');
      expect(await refused.json()).toMatchObject({ error: { type: 'rate_limit_error', code: 'overloaded' } });
    }
    expect(await (await fetch(`${handle.url}/load`)).json()).toEqual({ server_load: 1 });
    request.start();
    request.emit([39], 0, 'stop');
    expect((await running).status).toBe(200);
  });

  it('has bounds of the server’s own', async () => {
    const { handle, model } = await start({ isManual: true }, { maxConcurrency: 1, maxWaitingMs: 50 });
    const next = model.engine.nextRequest();
    const waiting = post(handle, CHAT);
    const request = await next;
    expect((await post(handle, CHAT)).status).toBe(429);
    const late = await waiting;
    expect(late.status).toBe(429);
    expect(await late.json()).toMatchObject({
      error: { message: expect.stringContaining('waited 50 ms') as string },
    });
    await request.aborted;
  });
});

describe('a stream that waited too long', () => {
  it('is a 429, for nothing was sent yet', async () => {
    const { handle } = await start({ isManual: true }, { maxWaitingMs: 50 });
    const late = await post(handle, { ...CHAT, stream: true });
    expect(late.status).toBe(429);
    expect(late.headers.get('retry-after')).toBe('1');
  });

  it('gets its headers with the first comment when the limit is longer than that', async () => {
    const { handle, model } = await start(
      { isManual: true },
      { maxWaitingMs: 60_000, streamKeepAliveMs: 20 },
    );
    const next = model.engine.nextRequest();
    const response = await post(handle, { ...CHAT, stream: true });
    expect(response.status).toBe(200);
    const request = await next;
    request.start();
    request.emit([39], 0, 'stop');
    expect(readEvents(await response.text()).at(-1)).toBe('[DONE]');
  });
});

describe('draining', () => {
  it('finishes what runs, refuses what comes, and says so to probes', async () => {
    const { handle, model } = await start({ isManual: true });
    const next = model.engine.nextRequest();
    const running = post(handle, { ...CHAT, stream: true });
    const request = await next;
    request.start();
    request.emit([39]);
    await handle.drain(10_000);
    const refused = await post(handle, CHAT);
    expect(refused.status).toBe(503);
    expect(refused.headers.get('connection')).toBe('close');
    expect(await refused.json()).toMatchObject({ error: { code: 'shutting_down' } });
    const health = await fetch(`${handle.url}/health`);
    expect([health.status, await health.json()]).toEqual([503, { status: 'draining' }]);
    request.emit([68], 0, 'stop');
    expect(await (await running).text()).toContain('"finish_reason":"stop"');
  });

  it('tells streams that are cut off', async () => {
    const { handle, model } = await start({ isManual: true });
    const next = model.engine.nextRequest();
    const running = post(handle, { ...CHAT, stream: true });
    const request = await next;
    request.start();
    request.emit([39]);
    const response = await running;
    await handle.drain(0);
    const events = readEvents(await response.text());
    expect(events.slice(-2)).toEqual([
      { error: expect.objectContaining({ code: 'shutting_down' }) as unknown },
      '[DONE]',
    ]);
  });
});

describe('a dead engine', () => {
  it('makes the server unhealthy', async () => {
    const { handle, model } = await start();
    model.engine.alive = false;
    expect(await (await fetch(`${handle.url}/health`)).json()).toEqual({ status: 'dead' });
    expect((await fetch(`${handle.url}/live`)).status).toBe(200);
    const refused = await post(handle, CHAT);
    expect([refused.status, await refused.json()]).toMatchObject([503, { error: { code: 'engine_dead' } }]);
  });

  it('hides the inside of an unexpected failure and says not to retry', async () => {
    const { handle, model } = await start({ isManual: true });
    const next = model.engine.nextRequest();
    const running = post(handle, CHAT);
    (await next).fail(new TypeError('/secret/path is not iterable'));
    const response = await running;
    expect(response.status).toBe(500);
    expect(response.headers.get('x-should-retry')).toBe('false');
    const text = await response.text();
    expect(text).not.toContain('secret');
    expect(JSON.parse(text)).toMatchObject({
      error: { type: 'server_error', code: 'internal_error', param: null },
    });
  });
});
