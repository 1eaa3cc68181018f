/**
 * Every error fdq reports, in one table: code → exit status of the CLI, HTTP status of the server.
 * Exit codes: 1 expected failure, 2 usage or configuration, 3 input not found or unsupported,
 * 4 a check failed, 70 a bug in fdq.
 */
const ERRORS = {
  // Command line and configuration
  usage: { exitCode: 2, httpStatus: 400 },
  invalid_config: { exitCode: 2, httpStatus: 400 },
  unknown_scheme: { exitCode: 2, httpStatus: 400 },
  already_quantized: { exitCode: 2, httpStatus: 400 },
  pattern_matches_nothing: { exitCode: 2, httpStatus: 400 },
  port_in_use: { exitCode: 1, httpStatus: 500 },
  // Model files
  model_not_found: { exitCode: 3, httpStatus: 404 },
  download_failed: { exitCode: 3, httpStatus: 502 },
  offline: { exitCode: 3, httpStatus: 502 },
  invalid_checkpoint: { exitCode: 3, httpStatus: 500 },
  unsupported_architecture: { exitCode: 3, httpStatus: 500 },
  unsupported_model: { exitCode: 3, httpStatus: 500 },
  non_finite_weight: { exitCode: 3, httpStatus: 500 },
  invalid_tokenizer: { exitCode: 3, httpStatus: 500 },
  // Reports of earlier runs
  report_not_found: { exitCode: 3, httpStatus: 500 },
  // Load tests
  invalid_dataset: { exitCode: 3, httpStatus: 500 },
  server_unreachable: { exitCode: 1, httpStatus: 500 },
  requests_failed: { exitCode: 1, httpStatus: 500 },
  // Machine and runtime
  addon_unavailable: { exitCode: 1, httpStatus: 500 },
  out_of_memory: { exitCode: 1, httpStatus: 503 },
  runtime_failed: { exitCode: 1, httpStatus: 500 },
  output_exists: { exitCode: 2, httpStatus: 500 },
  write_failed: { exitCode: 1, httpStatus: 500 },
  check_failed: { exitCode: 4, httpStatus: 500 },
  inconclusive: { exitCode: 5, httpStatus: 500 },
  aborted: { exitCode: 130, httpStatus: 499 },
  // Requests
  invalid_request: { exitCode: 1, httpStatus: 400 },
  context_length_exceeded: { exitCode: 1, httpStatus: 400 },
  unauthorized: { exitCode: 1, httpStatus: 401 },
  forbidden: { exitCode: 1, httpStatus: 403 },
  not_found: { exitCode: 1, httpStatus: 404 },
  served_model_not_found: { exitCode: 1, httpStatus: 404 },
  method_not_allowed: { exitCode: 1, httpStatus: 405 },
  payload_too_large: { exitCode: 1, httpStatus: 413 },
  unsupported_media_type: { exitCode: 1, httpStatus: 415 },
  overloaded: { exitCode: 1, httpStatus: 429 },
  not_ready: { exitCode: 1, httpStatus: 503 },
  shutting_down: { exitCode: 1, httpStatus: 503 },
  engine_dead: { exitCode: 1, httpStatus: 503 },
  // Bugs
  internal: { exitCode: 70, httpStatus: 500 },
} as const satisfies Record<string, { exitCode: number; httpStatus: number }>;

export type ErrorCode = keyof typeof ERRORS;

/** Of a code that another process printed. */
export function isErrorCode(text: string): text is ErrorCode {
  return Object.hasOwn(ERRORS, text);
}

export interface ErrorDetails {
  /** The offending flag, request field path, tensor or file. */
  readonly param?: string;
  /** What the user can do, each a full sentence or a command. */
  readonly suggestions?: readonly string[];
  readonly cause?: unknown;
}

/** Base of every error that reaches a user. The message names the offending thing and its value. */
export class FdqError extends Error {
  readonly code: ErrorCode;
  readonly param: string | undefined;
  readonly suggestions: readonly string[];

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.name = new.target.name;
    this.code = code;
    this.param = details.param;
    this.suggestions = details.suggestions ?? [];
  }

  get exitCode(): number {
    return ERRORS[this.code].exitCode;
  }

  get httpStatus(): number {
    return ERRORS[this.code].httpStatus;
  }
}

/** An expected failure: the user's input or machine has to change. */
export class UserError extends FdqError {}

/** A user error whose message names what is supported instead. */
export class UnsupportedError extends UserError {}

/** An invariant of fdq is broken. */
export class BugError extends FdqError {
  constructor(message: string, cause?: unknown) {
    super('internal', message, {
      cause,
      suggestions: ['This is a bug in fdq. Please report it with the command line and this message.'],
    });
  }
}
