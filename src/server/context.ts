import type { FastifyReply, FastifyRequest } from 'fastify';
import { FdqError, UserError } from '../errors.js';
import type { ServerMetrics } from './metrics.js';
import type { ServerLogger } from './request-log.js';
import type { StreamLimits } from './sse.js';
import type { ServedModel, ServerState } from './state.js';

export interface BuildInfo {
  readonly version: string;
  readonly onnxruntime: string;
  readonly commit?: string;
  /** Of the kernels, e.g. `avx512_bf16`. */
  readonly isa?: string;
}

/** What every route works with. */
export interface ServerContext {
  readonly state: ServerState;
  readonly metrics: ServerMetrics;
  readonly logger: ServerLogger;
  /** Request bodies are logged, too. */
  readonly logBodies: boolean;
  readonly build: BuildInfo;
  /** The first is the one shown. */
  readonly servedModelNames: readonly string[];
  /** Unix seconds; what `created` of the models says. */
  readonly startedAt: number;
  readonly maxLogprobs: number;
  readonly trustRequestChatTemplate: boolean;
  readonly stream: StreamLimits;
  /** Generation requests under way past which new ones are refused. */
  readonly maxConcurrency: number;
  /** Time in the queue past which a request is refused; null: no limit. */
  readonly maxWaitingMs: number | null;
}

/** What the log line and the metrics of one request say; filled while it runs. */
export interface RequestRecord {
  readonly startedAt: number;
  keyHolder: string;
  stream: boolean;
  promptTokens: number;
  generatedTokens: number;
  firstTokenAt: number | null;
  /** Status to report when it is not the response's own: an error after the headers, or a client that left. */
  status: number | null;
  errorCode: string | null;
  /** Nobody needs to hear of its failure: a probe while the model loads. */
  isExpected: boolean;
}

declare module 'fastify' {
  interface FastifyRequest {
    record: RequestRecord;
  }
}

export function bodyOf(request: FastifyRequest): Record<string, unknown> {
  const body = request.body;
  if (typeof body === 'object' && body !== null) return body as Record<string, unknown>;
  throw new UserError('invalid_request', 'The request has no body.', {
    suggestions: ['Send one JSON object with the header "content-type: application/json".'],
  });
}

/** @throws UserError `served_model_not_found`. A request may leave the model out when only one is served. */
export function resolveModelName(name: string | undefined, context: ServerContext): string {
  const names = context.servedModelNames;
  if (name === undefined) return names[0] as string;
  if (names.includes(name)) return name;
  throw new UserError('served_model_not_found', `The model \`${name.slice(0, 200)}\` does not exist.`, {
    param: 'model',
    suggestions: [`This server serves: ${names.join(', ')}.`],
  });
}

/** Tells which quantization answered. */
export function fingerprintOf(model: ServedModel, context: ServerContext): string {
  const { scheme, executionProvider } = model.engine.info;
  return `fdq-${context.build.version}-${scheme}-${executionProvider}`;
}

/** Aborted when the client closes its connection before the answer is complete. */
export function abortOnDisconnect(reply: FastifyReply): AbortController {
  const controller = new AbortController();
  const response = reply.raw;
  const onClose = (): void => {
    if (!response.writableFinished) controller.abort(clientGone());
  };
  response.once('close', onClose);
  if (response.destroyed) onClose();
  return controller;
}

export function clientGone(): FdqError {
  return new FdqError('aborted', 'The client closed the connection.');
}

export function unixSeconds(): number {
  return Math.floor(Date.now() / 1000);
}
