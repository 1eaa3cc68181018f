import { makeApp } from '../../helpers/test-server.js';
import type { TestModelOptions } from '../../helpers/test-server.js';
import type { ServerOptions } from '../../../src/server/server.js';

export type App = Awaited<ReturnType<typeof makeApp>>;
export const open: App[] = [];

export async function start(model: TestModelOptions = {}, server: Partial<ServerOptions> = {}): Promise<App> {
  const app = await makeApp(model, server);
  open.push(app);
  return app;
}

export const URL = '/v1/chat/completions';
export const MESSAGES = [{ role: 'user', content: 'hi' }];
/** "Hello" in the qwen3 fixture. */
export const HELLO = [39, 68, 327, 78];

export async function chat(
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
