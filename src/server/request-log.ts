import { randomUUID } from 'node:crypto';
import type { FastifyReply, FastifyRequest } from 'fastify';

/** What the server needs of a logger; pino's shape. */
export interface ServerLogger {
  debug(fields: Readonly<Record<string, unknown>>, message: string): void;
  info(fields: Readonly<Record<string, unknown>>, message: string): void;
  warn(fields: Readonly<Record<string, unknown>>, message: string): void;
  error(fields: Readonly<Record<string, unknown>>, message: string): void;
}

export const SILENT_LOGGER: ServerLogger = { debug() {}, info() {}, warn() {}, error() {} };

// C0 and C1 controls, line separators, and the marks that reorder text on a terminal.
// eslint-disable-next-line no-control-regex
const UNSAFE = /[\u0000-\u001f\u007f-\u009f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;

/** Text of a client as it may stand in a log line or on a terminal. */
export function escapeControls(text: string): string {
  return text.replace(UNSAFE, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`);
}

const MAX_ID_CHARS = 128;
const SAFE_ID = /[^A-Za-z0-9._:@+/=-]/g;

/** A client's request id without anything that could break a header or a log line; '' when nothing is left. */
export function sanitizeId(id: string): string {
  return id.replace(SAFE_ID, '').slice(0, MAX_ID_CHARS);
}

export function newRequestId(): string {
  return `req-${randomUUID()}`;
}

/** One line per finished request: no body, no header but the id. */
export function logRequest(request: FastifyRequest, reply: FastifyReply, logger: ServerLogger): void {
  const { record } = request;
  const now = performance.now();
  const status = record.status ?? reply.statusCode;
  const fields = {
    id: escapeControls(request.id),
    method: request.method,
    path: escapeControls(request.routeOptions.url ?? 'unknown'),
    status,
    ...(record.errorCode === null ? {} : { code: record.errorCode }),
    stream: record.stream,
    tokens_in: record.promptTokens,
    tokens_out: record.generatedTokens,
    ttft_ms: record.firstTokenAt === null ? null : Math.round(record.firstTokenAt - record.startedAt),
    total_ms: Math.round(now - record.startedAt),
  };
  if (record.isExpected) logger.debug(fields, 'request');
  else if (status >= 500) logger.warn(fields, 'request');
  else logger.info(fields, 'request');
}

/** Characters of a body that are logged; the rest is counted. */
const MAX_BODY_CHARS = 4096;

/** The body of a request, for the one option that asks for it. */
export function logBody(request: FastifyRequest, logger: ServerLogger): void {
  if (request.body === undefined || request.body === null) return;
  const text = JSON.stringify(request.body);
  const shown = escapeControls(text.slice(0, MAX_BODY_CHARS));
  const body = text.length > MAX_BODY_CHARS ? `${shown}... (${text.length} characters)` : shown;
  logger.info({ id: escapeControls(request.id), body }, 'request body');
}
