import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import { FdqError } from '../errors.js';
import { toErrorBody } from './http-errors.js';
import { newRequestId } from './request-log.js';

export interface SocketLimits {
  readonly bodyLimitBytes: number;
  /** Idle time of a kept connection; longer than that of common proxies (60 s), which would race with it. */
  readonly keepAliveMs: number;
  /** Time in which the headers of a request have to arrive. */
  readonly headersMs: number;
  /** Time in which a whole request has to arrive. Answers may take any time. */
  readonly requestMs: number;
  readonly maxConnections: number;
}

export const DEFAULT_LIMITS: SocketLimits = {
  bodyLimitBytes: 32 << 20,
  keepAliveMs: 75_000,
  headersMs: 30_000,
  requestMs: 120_000,
  maxConnections: 4096,
};

export interface Tls {
  readonly key: string | Buffer;
  readonly cert: string | Buffer;
}

/** How often Node looks for requests that are late. */
const CHECK_INTERVAL_MS = 5000;
const MAX_HEADER_BYTES = 16 << 10;

/** Every timeout of Node's HTTP server is set: its defaults change between versions and suit no stream. */
export function nodeServerOptions(limits: SocketLimits, tls: Tls | null): Record<string, unknown> {
  const node = {
    connectionsCheckingInterval: CHECK_INTERVAL_MS,
    headersTimeout: limits.headersMs,
    maxHeaderSize: MAX_HEADER_BYTES,
    noDelay: true,
  };
  return {
    keepAliveTimeout: limits.keepAliveMs,
    requestTimeout: limits.requestMs,
    connectionTimeout: 0,
    maxRequestsPerSocket: 0,
    ...(tls === null ? { http: node } : { https: { ...node, key: tls.key, cert: tls.cert } }),
  };
}

/** How long a client may go on sending a body that is refused. */
const DISCARD_MS = 5000;

/**
 * Reads the rest of a body into nothing, then calls `then`. Answered at once, the connection would be reset under a client that
 * is still sending, and the answer be lost (RFC 9112, 9.6).
 */
export function discardBody(request: IncomingMessage, then: () => void): void {
  const timer = setTimeout(finish, DISCARD_MS);
  function finish(): void {
    clearTimeout(timer);
    request.off('end', finish).off('close', finish);
    then();
  }
  if (request.readableEnded || request.destroyed) {
    finish();
    return;
  }
  request.on('end', finish).on('close', finish);
  request.resume();
}

const STATUS_OF_CODE: Readonly<Record<string, readonly [number, string, string]>> = {
  HPE_HEADER_OVERFLOW: [431, 'Request Header Fields Too Large', 'The request headers are too large.'],
  ERR_HTTP_REQUEST_TIMEOUT: [408, 'Request Timeout', 'The request did not arrive in time.'],
};

/** Answers bytes that are not HTTP, late and oversized requests, for which there is no request object. */
export function answerClientError(error: NodeJS.ErrnoException, socket: Socket): void {
  if (error.code === 'ECONNRESET' || !socket.writable) {
    socket.destroy();
    return;
  }
  const fallback = [400, 'Bad Request', 'The request is not valid HTTP.'] as const;
  const [status, reason, message] = STATUS_OF_CODE[error.code ?? ''] ?? fallback;
  const body = JSON.stringify(toErrorBody(new FdqError('invalid_request', message)));
  socket.end(
    `HTTP/1.1 ${status} ${reason}\r\nconnection: close\r\ncontent-type: application/json; charset=utf-8\r\n` +
      `x-request-id: ${newRequestId()}\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
  );
}
