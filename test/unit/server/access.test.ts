import { request as httpRequest } from 'node:http';
import type { IncomingMessage } from 'node:http';
import { connect, createServer as createTcpServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { ROUTES } from '../../../src/server/app.js';
import { startServer } from '../../../src/server/server.js';
import type { ServerOptions } from '../../../src/server/server.js';
import { BASE_OPTIONS, makeApp } from '../../helpers/test-server.js';

type App = Awaited<ReturnType<typeof makeApp>>;
const open: App[] = [];

async function start(server: Partial<ServerOptions> = {}): Promise<App> {
  const app = await makeApp({ script: () => [39] }, server);
  open.push(app);
  return app;
}

afterEach(async () => {
  await Promise.all(open.splice(0).map((app) => app.close()));
});

const OPEN_ROUTES = ['/health', '/ping', '/live', '/metrics'];

describe('keys', () => {
  it.each(ROUTES.flatMap(({ path, methods }) => methods.map((method) => [method, path] as const)))(
    'guard %s %s',
    async (method, path) => {
      const { app } = await start({ apiKeys: ['first', 'second'] });
      const url = path.replace('*', 'fake');
      const isOpen = OPEN_ROUTES.includes(path);
      const without = await app.inject({ method, url, ...(method === 'POST' ? { payload: {} } : {}) });
      expect(without.statusCode).toBe(isOpen ? 200 : 401);
      if (isOpen) return;
      expect(without.json()).toMatchObject({
        error: { type: 'authentication_error', param: null, code: 'invalid_api_key' },
      });
      for (const authorization of ['Bearer wrong', 'Bearer', 'Basic first', 'first', 'Bearer first second']) {
        expect((await app.inject({ method, url, headers: { authorization } })).statusCode).toBe(401);
      }
      for (const key of ['first', 'second']) {
        const headers = { authorization: `Bearer ${key}` };
        expect(
          (await app.inject({ method, url, headers, ...(method === 'POST' ? { payload: {} } : {}) }))
            .statusCode,
        ).not.toBe(401);
      }
    },
  );

  it('guard unknown routes, and metrics when told to', async () => {
    const { app } = await start({ apiKeys: ['k'], protectMetrics: true });
    expect((await app.inject('/nothing')).statusCode).toBe(401);
    expect((await app.inject('/metrics')).statusCode).toBe(401);
    expect((await app.inject('/health')).statusCode).toBe(200);
  });

  it('keep the prefixes of their holders apart', async () => {
    const { app, model } = await start({ apiKeys: ['a', 'b'] });
    const salts = [];
    for (const key of ['a', 'b', 'a']) {
      await app.inject({
        method: 'POST',
        url: '/v1/completions',
        payload: { prompt: 'x' },
        headers: { authorization: `Bearer ${key}` },
      });
      salts.push(model.engine.requests.at(-1)?.request.cacheSalt);
    }
    expect(salts[0]).toBeDefined();
    expect(salts[0]).not.toBe(salts[1]);
    expect(salts[0]).toBe(salts[2]);
    expect(salts[0]).not.toContain('a\n');
  });
});

describe('web pages', () => {
  const preflight = {
    origin: 'http://ui.example',
    'access-control-request-method': 'POST',
    'access-control-request-headers': 'authorization,content-type',
  };

  it('may come from anywhere when there is no key', async () => {
    const { app } = await start();
    const answer = await app.inject({ method: 'OPTIONS', url: '/v1/chat/completions', headers: preflight });
    expect(answer.statusCode).toBe(204);
    expect(answer.headers).toMatchObject({
      'access-control-allow-origin': '*',
      'access-control-allow-headers': 'authorization,content-type',
    });
    expect(answer.headers['access-control-allow-methods']).toContain('POST');
    expect(
      (await app.inject({ url: '/version', headers: { origin: 'http://x' } })).headers[
        'access-control-allow-origin'
      ],
    ).toBe('*');
  });

  it('may not read anything when there is one', async () => {
    const { app } = await start({ apiKeys: ['k'] });
    const answer = await app.inject({ method: 'OPTIONS', url: '/v1/models', headers: preflight });
    expect(answer.statusCode).toBe(403);
    expect(answer.headers).not.toHaveProperty('access-control-allow-origin');
    const read = await app.inject({
      url: '/v1/models',
      headers: { origin: 'http://x', authorization: 'Bearer k' },
    });
    expect(read.headers).not.toHaveProperty('access-control-allow-origin');
  });

  it('may come from the origins that are listed', async () => {
    const { app } = await start({ allowedOrigins: ['http://ui.example'] });
    const good = await app.inject({ url: '/version', headers: { origin: 'http://ui.example' } });
    expect(good.headers).toMatchObject({
      'access-control-allow-origin': 'http://ui.example',
      vary: 'origin',
    });
    const bad = await app.inject({
      method: 'OPTIONS',
      url: '/version',
      headers: { origin: 'http://evil.example' },
    });
    expect(bad.statusCode).toBe(403);
    const stream = await app.inject({
      method: 'POST',
      url: '/v1/completions',
      payload: { prompt: 'x', stream: true },
      headers: { origin: 'http://ui.example' },
    });
    expect(stream.headers).toMatchObject({ 'access-control-allow-origin': 'http://ui.example' });
  });

  it('cannot reach loopback under another name', async () => {
    const { app } = await start();
    for (const host of ['evil.example', 'evil.example:8000', '127.0.0.1.evil.example']) {
      expect((await app.inject({ url: '/v1/models', headers: { host } })).statusCode).toBe(403);
    }
    for (const host of ['localhost:8000', '127.0.0.1', '[::1]:80', 'LOCALHOST']) {
      expect((await app.inject({ url: '/v1/models', headers: { host } })).statusCode).toBe(200);
    }
    const wide = await start({ host: '0.0.0.0', apiKeys: ['k'] });
    expect((await wide.app.inject({ url: '/health', headers: { host: 'box.example' } })).statusCode).toBe(
      200,
    );
  });
});

describe('binding', () => {
  it('to other machines needs a key or a word', async () => {
    const wide = { ...BASE_OPTIONS, host: '0.0.0.0' };
    await expect(startServer(wide)).rejects.toMatchObject({ code: 'invalid_config', param: 'host' });
    const handle = await startServer({ ...wide, allowUnauthenticated: true });
    await handle.close();
  });

  it('says that a port is taken', async () => {
    const blocker = createTcpServer();
    await new Promise<void>((resolve) => blocker.listen(0, '127.0.0.1', resolve));
    const { port } = blocker.address() as AddressInfo;
    try {
      await expect(startServer({ ...BASE_OPTIONS, port })).rejects.toMatchObject({
        code: 'port_in_use',
        message: expect.stringContaining(String(port)) as string,
      });
    } finally {
      await new Promise((resolve) => blocker.close(resolve));
    }
  });

  it('says that an address is not of this machine', async () => {
    // TEST-NET-1 of RFC 5737: never assigned.
    const elsewhere = { ...BASE_OPTIONS, host: '192.0.2.1', allowUnauthenticated: true };
    await expect(startServer(elsewhere)).rejects.toMatchObject({ code: 'invalid_config', param: 'host' });
  });

  it('serves metrics on a port of their own', async () => {
    const handle = await startServer({ ...BASE_OPTIONS, metricsPort: 0 });
    try {
      expect((await fetch(`${handle.url}/metrics`)).status).toBe(404);
      expect(handle.metricsPort).toBeGreaterThan(0);
      const metrics = await fetch(`http://127.0.0.1:${handle.metricsPort}/metrics`);
      expect(await metrics.text()).toContain('vllm:num_requests_running');
    } finally {
      await handle.close();
    }
  });
});

describe('paths', () => {
  it.each(['/v1/models', '/v1/models/', '//v1//models', '/v1/models?x=1'])('accept %s', async (url) => {
    const { app } = await start();
    expect((await app.inject({ url })).statusCode).toBe(200);
    expect((await app.inject({ url, method: 'HEAD' })).statusCode).toBe(200);
  });

  it('may be whole URLs, as clients send them to a proxy', async () => {
    const handle = await startServer(BASE_OPTIONS);
    try {
      const status = await new Promise<number | undefined>((resolve, reject) => {
        const { port } = handle;
        const options = { host: '127.0.0.1', port, path: `http://127.0.0.1:${port}//health` };
        const request = httpRequest(options, (response) => {
          response.resume();
          resolve(response.statusCode);
        });
        request.on('error', reject).end();
      });
      expect(status).toBe(503);
    } finally {
      await handle.close();
    }
  });

  it('may have a prefix', async () => {
    const { app } = await start({ rootPath: '/llm' });
    expect((await app.inject('/llm/v1/models')).statusCode).toBe(200);
    expect((await app.inject('/llm/health')).statusCode).toBe(200);
    expect((await app.inject('/llmx/health')).statusCode).toBe(404);
  });
});

describe('a body over the limit', () => {
  it.each([
    ['with its length', `content-length: ${24 << 20}`, ''],
    ['in chunks', 'transfer-encoding: chunked', `${(24 << 20).toString(16)}\r\n`],
  ])('is read to its end, so that the answer arrives: sent %s', async (_how, header, prefix) => {
    const handle = await startServer({ ...BASE_OPTIONS, limits: { bodyLimitBytes: 1 << 20 } });
    const socket = connect(handle.port, '127.0.0.1');
    try {
      const head = `POST /v1/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n${header}\r\n\r\n`;
      const sent = new Promise<void>((resolve, reject) => {
        socket.on('error', reject);
        socket.write(head + prefix);
        socket.write(Buffer.alloc(24 << 20, ' '), (error) => (error ? reject(error) : resolve()));
        if (prefix !== '') socket.write('\r\n0\r\n\r\n');
      });
      await sent;
      let answer = '';
      for await (const chunk of socket) answer += String(chunk);
      expect(answer).toMatch(/^HTTP\/1\.1 413 /);
      expect(answer).toMatch(/connection: close/i);
      expect(answer).toContain('payload_too_large');
    } finally {
      socket.destroy();
      await handle.close();
    }
  });
});

describe('bad HTTP', () => {
  it('is answered in JSON', async () => {
    const handle = await startServer(BASE_OPTIONS);
    try {
      const response = await new Promise<IncomingMessage>((resolve, reject) => {
        const options = { headers: { 'x-big': 'a'.repeat(17_000) } };
        httpRequest(`${handle.url}/health`, options, resolve).on('error', reject).end();
      });
      response.resume();
      expect(response.statusCode).toBe(431);
      expect(response.headers['x-request-id']).toMatch(/^req-[0-9a-f-]{36}$/);
    } finally {
      await handle.close();
    }
  });
});
