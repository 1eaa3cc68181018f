import type { FastifyReply } from 'fastify';
import { FdqError } from '../errors.js';
import { toErrorBody } from './http-errors.js';

export interface StreamLimits {
  /** Time between comments while nothing else is sent. */
  readonly keepAliveMs: number;
  /** Bytes a slow reader may leave unread before its request is dropped. */
  readonly maxBufferedBytes: number;
}

/** How long the end of a dropped stream may take to reach its reader. */
const DROP_LINGER_MS = 5000;

/**
 * One response as server-sent events (WHATWG HTML, "Server-sent events"). Writing never waits for the reader: what the
 * socket does not take is buffered up to a bound, past which `onOverflow` is called once and the stream is closed.
 */
export class EventStream {
  readonly #response: FastifyReply['raw'];
  readonly #limits: StreamLimits;
  readonly #onOverflow: () => void;
  #keepAlive: NodeJS.Timeout | null = null;
  #ended = false;

  /** Takes the response over from fastify and sends its headers at once. */
  constructor(reply: FastifyReply, limits: StreamLimits, onOverflow: () => void) {
    this.#limits = limits;
    this.#onOverflow = onOverflow;
    reply.hijack();
    this.#response = reply.raw;
    this.#response.writeHead(200, {
      ...(reply.getHeaders() as Record<string, string>),
      'content-type': 'text/event-stream; charset=utf-8',
      'cache-control': 'no-cache',
      connection: 'keep-alive',
      'x-accel-buffering': 'no',
    });
    this.#response.flushHeaders();
    this.#keepAlive = setInterval(() => this.#write(': keep-alive\n\n'), limits.keepAliveMs);
  }

  send(event: unknown): void {
    // Comments are for the silence of the queue and of prefill; from here on tokens keep the connection busy.
    this.#stopKeepAlive();
    this.#write(`data: ${JSON.stringify(event)}\n\n`);
  }

  /** The last event of a stream that failed, followed by the end mark. */
  fail(error: FdqError): void {
    this.send(toErrorBody(error));
    this.finish();
  }

  finish(): void {
    this.#write('data: [DONE]\n\n');
    this.close();
  }

  close(): void {
    this.#stopKeepAlive();
    if (this.#ended) return;
    this.#ended = true;
    this.#response.end();
  }

  #stopKeepAlive(): void {
    if (this.#keepAlive !== null) clearInterval(this.#keepAlive);
    this.#keepAlive = null;
  }

  #write(text: string): void {
    if (this.#ended || this.#response.destroyed) return;
    this.#response.write(text);
    if (this.#response.writableLength > this.#limits.maxBufferedBytes) this.#drop();
  }

  #drop(): void {
    this.#stopKeepAlive();
    this.#ended = true;
    const error = new FdqError('aborted', 'The stream was not read fast enough and was dropped.', {
      suggestions: ['Read the stream while it is written.'],
    });
    this.#response.end(`data: ${JSON.stringify(toErrorBody(error))}\n\ndata: [DONE]\n\n`);
    setTimeout(() => this.#response.destroy(), DROP_LINGER_MS).unref();
    this.#onOverflow();
  }
}
