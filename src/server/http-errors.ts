import type { FastifyError, FastifyReply, FastifyRequest } from 'fastify';
import { FdqError, UserError } from '../errors.js';
import type { ErrorCode } from '../errors.js';

/** OpenAI's error body; all four keys are always present. */
export interface ErrorBody {
  readonly error: {
    readonly message: string;
    readonly type: string;
    readonly param: string | null;
    readonly code: string | null;
  };
}

/** Where OpenAI's name of a code differs from ours. */
const OPENAI_CODES: Partial<Record<ErrorCode, string>> = {
  served_model_not_found: 'model_not_found',
  unauthorized: 'invalid_api_key',
  internal: 'internal_error',
};

/** Seconds after which a retry may succeed. */
const RETRY_AFTER_S: Partial<Record<ErrorCode, number>> = {
  overloaded: 1,
  not_ready: 5,
  shutting_down: 5,
  engine_dead: 10,
};

function typeOfStatus(status: number): string {
  if (status === 401) return 'authentication_error';
  if (status === 403) return 'permission_error';
  if (status === 429) return 'rate_limit_error';
  if (status === 503) return 'service_unavailable_error';
  return status < 500 ? 'invalid_request_error' : 'server_error';
}

/** A 4xx of fastify itself, in our words. */
function fromFastify(error: FastifyError): FdqError | null {
  switch (error.code) {
    case 'FST_ERR_CTP_BODY_TOO_LARGE':
      return new UserError('payload_too_large', 'The request body is larger than this server accepts.', {
        suggestions: ['Send a shorter prompt, or fewer prompts in one request.'],
      });
    case 'FST_ERR_CTP_INVALID_MEDIA_TYPE':
      return unsupportedMediaType('Only JSON bodies are accepted.');
    default:
      if (error.statusCode === undefined || error.statusCode >= 500) return null;
      return new UserError('invalid_request', `The request is malformed: ${error.message}.`, {
        cause: error,
      });
  }
}

export function unsupportedMediaType(message: string): UserError {
  return new UserError('unsupported_media_type', message, {
    suggestions: ['Send the header "content-type: application/json" and an uncompressed body.'],
  });
}

/** Any thrown value as one of our errors; what is not expected becomes `internal` and keeps its cause for the log. */
export function toFdqError(error: unknown): FdqError {
  if (error instanceof FdqError) return error;
  const known = error instanceof Error && 'code' in error ? fromFastify(error as FastifyError) : null;
  return known ?? new FdqError('internal', 'fdq failed to answer this request.', { cause: error });
}

/** Internal errors tell clients nothing of the inside: the log has it under the request id. */
export function toErrorBody(error: FdqError): ErrorBody {
  const isInternal = error.httpStatus === 500;
  const message = isInternal
    ? 'The server failed to answer this request. Its log tells why under the id in x-request-id.'
    : [error.message, ...error.suggestions].join(' ');
  return {
    error: {
      message,
      type: typeOfStatus(error.httpStatus),
      param: isInternal ? null : (error.param ?? null),
      code: OPENAI_CODES[error.code] ?? error.code,
    },
  };
}

/** Headers that tell the official SDKs whether and when to try again. */
export function retryHeaders(error: FdqError): Readonly<Record<string, string>> {
  const seconds = RETRY_AFTER_S[error.code];
  if (seconds !== undefined) return { 'retry-after': String(seconds) };
  return error.httpStatus >= 500 ? { 'x-should-retry': 'false' } : {};
}

/** Sends the error as the answer; the caller has not written anything yet. */
export function sendError(error: FdqError, reply: FastifyReply): FastifyReply {
  reply.headers(retryHeaders(error));
  if (error.code === 'shutting_down') reply.header('connection', 'close');
  if (error.code === 'unauthorized') reply.header('www-authenticate', 'Bearer');
  return reply.code(error.httpStatus).type('application/json; charset=utf-8').send(toErrorBody(error));
}

export function notFound(request: FastifyRequest, routes: readonly string[]): UserError {
  return new UserError('not_found', `There is no route ${request.method} ${pathOf(request.url)}.`, {
    suggestions: [`The routes are ${routes.join(', ')}.`],
  });
}

const MAX_SHOWN_PATH = 200;

export function pathOf(url: string): string {
  const end = url.indexOf('?');
  return (end < 0 ? url : url.slice(0, end)).slice(0, MAX_SHOWN_PATH);
}
