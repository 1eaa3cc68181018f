import { ChatRenderer } from '../../src/text/chat-template.js';
import { createTextStreamFactory } from '../../src/text/detokenizer.js';
import { loadTokenizer } from '../../src/text/tokenizer.js';
import type { Tokenizer } from '../../src/text/tokenizer.js';
import { createServer, setModel, startServer } from '../../src/server/server.js';
import type { ServerHandle, ServerOptions } from '../../src/server/server.js';
import type { GenerationDefaults, ServedModel } from '../../src/server/state.js';
import { FakeEngine } from './fake-engine.js';
import type { FakeEngineOptions } from './fake-engine.js';
import { tokenizerFolder } from './fixture-folders.js';

export interface TestModelOptions extends Omit<FakeEngineOptions, 'streams'> {
  readonly defaults?: GenerationDefaults;
  /** Fixture whose tokenizer and template are used. */
  readonly fixture?: string;
}

export interface TestModel extends ServedModel {
  readonly engine: FakeEngine;
  readonly tokenizer: Tokenizer;
}

export const BASE_OPTIONS: ServerOptions = {
  host: '127.0.0.1',
  port: 0,
  servedModelNames: ['fake', 'org/alias'],
  build: { version: '9.9.9', onnxruntime: '1.30.0', isa: 'avx2' },
};

/** A fake engine with the tokenizer of a fixture. */
export async function makeModel(options: TestModelOptions = {}): Promise<TestModel> {
  const tokenizer = await loadTokenizer(tokenizerFolder(options.fixture ?? 'qwen3'));
  const streams = createTextStreamFactory(tokenizer);
  const renderer = new ChatRenderer({
    templates: tokenizer.chatTemplates,
    specialTokens: tokenizer.specialTokens,
  });
  const { defaults, fixture: _fixture, ...engineOptions } = options;
  return {
    engine: new FakeEngine({ ...engineOptions, streams }),
    tokenizer,
    renderer,
    defaults: defaults ?? {},
  };
}

/** An app for `inject`, closed by `close`. */
export async function makeApp(
  modelOptions: TestModelOptions = {},
  serverOptions: Partial<ServerOptions> = {},
): Promise<ReturnType<typeof createServer> & { model: TestModel; close: () => Promise<void> }> {
  const model = await makeModel(modelOptions);
  const server = createServer({ ...BASE_OPTIONS, ...serverOptions });
  setModel(server.context, model);
  const close = async (): Promise<void> => {
    const { renderer, tokenizer } = model;
    await Promise.all([server.app.close(), server.metricsApp?.close(), renderer.close(), tokenizer.close()]);
    server.context.metrics.close();
  };
  return { ...server, model, close };
}

/** A listening server on a free port. */
export async function makeServer(
  modelOptions: TestModelOptions = {},
  serverOptions: Partial<ServerOptions> = {},
): Promise<{ handle: ServerHandle; model: TestModel }> {
  const model = await makeModel(modelOptions);
  const handle = await startServer({ ...BASE_OPTIONS, ...serverOptions });
  handle.setReady(model);
  return { handle, model };
}

/** Events of a server-sent event stream, without comments; the last is '[DONE]'. */
export function readEvents(body: string): unknown[] {
  return body
    .split('\n\n')
    .filter((block) => block.startsWith('data: '))
    .map((block) => block.slice('data: '.length))
    .map((data) => (data === '[DONE]' ? data : (JSON.parse(data) as unknown)));
}
