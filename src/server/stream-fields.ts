import { UserError } from '../errors.js';
import type { ServerContext } from './context.js';
import type { Usage, UsageCounter } from './usage.js';

interface StreamFields {
  readonly stream?: boolean | undefined;
  readonly stream_options?:
    | {
        readonly include_usage?: boolean | null | undefined;
        readonly continuous_usage_stats?: boolean | null | undefined;
      }
    | undefined;
  readonly prompt_logprobs?: number | undefined;
  readonly n?: number | undefined;
  readonly best_of?: number | undefined;
}

function invalid(message: string, param: string, suggestion: string): UserError {
  return new UserError('invalid_request', message, { param, suggestions: [suggestion] });
}

/** @throws UserError `invalid_request` for fields that contradict `stream`. */
export function checkStreamFields(body: StreamFields): void {
  if (body.stream_options !== undefined && body.stream !== true) {
    throw invalid('stream_options needs stream to be true.', 'stream_options', 'Set "stream": true.');
  }
  if (body.stream === true && body.prompt_logprobs !== undefined) {
    throw invalid('prompt_logprobs cannot be streamed.', 'prompt_logprobs', 'Set "stream": false.');
  }
}

/** @throws UserError `invalid_request`: no more sequences are generated than are answered. */
export function checkBestOf(body: StreamFields): void {
  if (body.best_of === undefined || body.best_of === (body.n ?? 1)) return;
  throw invalid('best_of other than n is not supported.', 'best_of', 'Leave best_of out, or set it to n.');
}

/** When chunks carry usage. Each function gives what the key holds, undefined for no key. */
export interface StreamUsage {
  readonly onChunk: () => Usage | null | undefined;
  /** null: no closing usage chunk. */
  readonly atEnd: () => Usage | null;
}

export function streamUsage(body: StreamFields, counter: UsageCounter): StreamUsage {
  const included = body.stream_options?.include_usage === true;
  const continuous = included && body.stream_options.continuous_usage_stats === true;
  return {
    onChunk: () => (continuous ? counter.get() : included ? null : undefined),
    atEnd: () => (included ? counter.get() : null),
  };
}

const MAX_LOGGED_FIELDS = 8;

/** Unknown fields are ignored, but not silently: a counter and a debug line tell. */
export function noteUnknownFields(fields: readonly string[], context: ServerContext): void {
  if (fields.length === 0) return;
  context.metrics.countUnknownFields(fields.length);
  context.logger.debug({ fields: fields.slice(0, MAX_LOGGED_FIELDS) }, 'request fields ignored');
}
