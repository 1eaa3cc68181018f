import { createServer, type IncomingMessage, type RequestListener, type ServerResponse } from 'node:http';
import { createServer as createSecureServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { onTestFinished } from 'vitest';
import type { Certificate } from './certificate.js';

export interface FakeCall {
  readonly body: Readonly<Record<string, unknown>>;
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  /** How many requests to this route came before. */
  readonly index: number;
}

/** Answers of one route by its path; the others are 404. */
export type FakeRoutes = Readonly<Record<string, (call: FakeCall) => void | Promise<void>>>;

export interface FakeOpenAi {
  readonly url: URL;
  readonly calls: readonly FakeCall[];
  /** Closed by itself at the end of the test. */
  close(): Promise<void>;
}

/**
 * A server that does what the test says; it dies with the test.
 * @param certificate absent: HTTP
 */
export async function fakeOpenAi(routes: FakeRoutes, certificate?: Certificate): Promise<FakeOpenAi> {
  const calls: FakeCall[] = [];
  const counts = new Map<string, number>();
  const listener: RequestListener = (request, response) => {
    let text = '';
    request.setEncoding('utf8');
    request.on('data', (part: string) => (text += part));
    request.on('end', () => {
      const path = request.url ?? '';
      const index = counts.get(path) ?? 0;
      counts.set(path, index + 1);
      const route = routes[path];
      if (route === undefined) {
        response
          .writeHead(404, { 'content-type': 'application/json' })
          .end('{"error": {"message": "no route"}}');
        return;
      }
      const body = (text === '' ? {} : JSON.parse(text)) as Record<string, unknown>;
      const call = { body, request, response, index };
      calls.push(call);
      void route(call);
    });
  };
  const server =
    certificate === undefined ? createServer(listener) : createSecureServer(certificate, listener);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const close = async (): Promise<void> => {
    server.closeAllConnections();
    if (server.listening) await new Promise((resolve) => server.close(resolve));
  };
  onTestFinished(close);
  const scheme = certificate === undefined ? 'http' : 'https';
  return { url: new URL(`${scheme}://127.0.0.1:${(server.address() as AddressInfo).port}`), calls, close };
}

export function startEvents({ response }: FakeCall): void {
  response.writeHead(200, { 'content-type': 'text/event-stream; charset=utf-8' });
}

export function sendEvent({ response }: FakeCall, event: unknown): void {
  response.write(`data: ${typeof event === 'string' ? event : JSON.stringify(event)}\n\n`);
}

export const textEvent = (text: string, finishReason: string | null = null): object => ({
  choices: [{ index: 0, text, finish_reason: finishReason }],
});

export const usageEvent = (input: number, output: number): object => ({
  choices: [],
  usage: { prompt_tokens: input, completion_tokens: output, total_tokens: input + output },
});

/** A whole answer of that many tokens, a chunk each. */
export function answerAll(call: FakeCall, numTokens = Number(call.body['max_tokens'])): void {
  startEvents(call);
  for (let i = 0; i < numTokens; i++)
    sendEvent(call, textEvent(` t${i}`, i === numTokens - 1 ? 'length' : null));
  sendEvent(call, usageEvent(promptLength(call.body['prompt']), numTokens));
  sendEvent(call, '[DONE]');
  call.response.end();
}

function promptLength(prompt: unknown): number {
  return Array.isArray(prompt) ? prompt.length : String(prompt).trim().split(' ').length;
}

export const answerModels = ({ response }: FakeCall): void =>
  void response
    .writeHead(200, { 'content-type': 'application/json' })
    .end(JSON.stringify({ object: 'list', data: [{ id: 'fake', object: 'model', max_model_len: 4096 }] }));
