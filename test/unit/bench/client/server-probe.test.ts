import { describe, expect, it, onTestFinished } from 'vitest';
import { HttpClient } from '../../../../src/bench/client/http-client.js';
import { measureLoopLag } from '../../../../src/bench/client/loop-lag.js';
import {
  findModel,
  findRuntime,
  findTokenIds,
  NotReadyError,
  retryUntilReady,
} from '../../../../src/bench/client/server-probe.js';
import { answerModels, fakeOpenAi, type FakeCall, type FakeRoutes } from '../../../helpers/fake-openai.js';

async function connect(routes: FakeRoutes, path = '') {
  const server = await fakeOpenAi(routes);
  const url = new URL(`${server.url.href}${path}`);
  const client = new HttpClient({ url, headers: {}, timeoutSeconds: 10, insecure: false });
  onTestFinished(() => client.close());
  return { server, client, url };
}

const answer =
  (status: number, value: unknown) =>
  ({ response }: FakeCall): void =>
    void response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(value));

describe('findModel', () => {
  it('is the first that the server names, or the one of the name', async () => {
    const data = [{ id: 'a', max_model_len: 512 }, { id: 'b' }];
    const { client } = await connect({ '/v1/models': answer(200, { data }) });
    expect(await findModel(client, undefined)).toEqual({ id: 'a', maxModelLen: 512 });
    expect(await findModel(client, 'b')).toEqual({ id: 'b', maxModelLen: null });
    expect(await findModel(client, 'not listed')).toEqual({ id: 'not listed', maxModelLen: null });
  });

  it('keeps the path of the address', async () => {
    const { client } = await connect({ '/prefix/v1/models': answerModels }, 'prefix');
    expect((await findModel(client, undefined)).id).toBe('fake');
  });

  it.each([
    [
      'an answer that is no list',
      answer(200, { data: 7 }),
      undefined,
      '/v1/models names no model: status 200',
    ],
    ['a key that is missing', answer(401, { error: { message: 'no key' } }), 'a', 'status 401, no key'],
    ['no such route', answer(404, { detail: 'Not Found' }), undefined, 'status 404, "Not Found"'],
  ])('says %s', async (_, route, wanted, message) => {
    const { client } = await connect({ '/v1/models': route });
    await expect(findModel(client, wanted)).rejects.toThrow(message);
  });

  it('takes the name that is given where the server has no list', async () => {
    const { client } = await connect({});
    expect(await findModel(client, 'named')).toEqual({ id: 'named', maxModelLen: null });
  });
});

describe('findRuntime', () => {
  const { signal } = new AbortController();

  it('is what fdq says of itself', async () => {
    const version = { version: '1.2.3', onnxruntime: '1.30.0', commit: null, isa: 'amx' };
    const { client } = await connect({ '/version': answer(200, version) });
    expect(await findRuntime(client, signal)).toEqual({ isa: 'amx', onnxruntime: '1.30.0' });
  });

  it.each([
    ['has no such route', {}],
    ['is another', { '/version': answer(200, { version: '0.11.0' }) }],
    ['answers something else', { '/version': answer(200, { isa: 7, onnxruntime: null }) }],
    ['hangs up', { '/version': ({ response }: FakeCall) => void response.destroy() }],
  ])('is unknown where the server %s', async (_, routes) => {
    const { client } = await connect(routes);
    expect(await findRuntime(client, signal)).toEqual({ isa: null, onnxruntime: null });
  });
});

describe('findTokenIds', () => {
  it('has every id once', async () => {
    const tokens = [...Array.from({ length: 40 }, (_, i) => i), 3, 4, 'x'];
    const { client, server } = await connect({ '/tokenize': answer(200, { tokens }) });
    expect(await findTokenIds(client, 'm')).toEqual(Array.from({ length: 40 }, (_, i) => i));
    expect(server.calls[0]?.body).toMatchObject({ model: 'm', add_special_tokens: false });
  });

  it.each([
    ['has no such route', {}],
    ['knows few tokens', { '/tokenize': answer(200, { tokens: [1, 2] }) }],
    ['answers something else', { '/tokenize': answer(200, { ids: [] }) }],
    ['hangs up', { '/tokenize': ({ response }: FakeCall) => void response.destroy() }],
  ])('is nothing where the server %s', async (_, routes) => {
    const { client } = await connect(routes);
    expect(await findTokenIds(client, 'm')).toBeUndefined();
  });
});

describe('retryUntilReady', () => {
  const url = new URL('http://host:1');

  it('tries again while the server is not ready', async () => {
    let tries = 0;
    const attempt = (): Promise<string> =>
      ++tries < 3 ? Promise.reject(new NotReadyError('loading')) : Promise.resolve('there');
    expect(await retryUntilReady(attempt, { seconds: 30, url })).toBe('there');
    expect(tries).toBe(3);
  });

  it('gives up with the last reason when time is over, at once without time', async () => {
    let tries = 0;
    const attempt = (): Promise<never> => {
      tries++;
      return Promise.reject(new NotReadyError('loading'));
    };
    await expect(retryUntilReady(attempt, { seconds: 0, url })).rejects.toMatchObject({
      code: 'server_unreachable',
      message: 'No answer from http://host:1: loading.',
    });
    expect(tries).toBe(1);
  });

  it('passes other errors on, and Ctrl-C', async () => {
    const bug = new TypeError('bug');
    await expect(retryUntilReady(() => Promise.reject(bug), { seconds: 9, url })).rejects.toBe(bug);
    const controller = new AbortController();
    const attempt = (): Promise<never> => {
      controller.abort(new Error('Ctrl-C'));
      return Promise.reject(new NotReadyError('loading'));
    };
    const waiting = retryUntilReady(attempt, { seconds: 99, url, signal: controller.signal });
    await expect(waiting).rejects.toThrow('Ctrl-C');
  });
});

describe('measureLoopLag', () => {
  it('sees that the event loop is held', async () => {
    const stop = measureLoopLag();
    const turn = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 1));
    for (let i = 0; i < 5; i++) {
      await turn();
      const until = performance.now() + 40;
      while (performance.now() < until);
    }
    await turn();
    expect(stop()).toBeGreaterThan(20);
  });

  it('is 0 of no time', () => {
    expect(measureLoopLag()()).toBe(0);
  });
});
