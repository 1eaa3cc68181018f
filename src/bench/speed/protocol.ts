import { BugError, FdqError, UserError, type ErrorCode } from '../../errors.js';
import type { LoadPhase } from '../../load/load-model.js';
import type { RoundSample } from './measure-round.js';
import type { SpeedCase } from './options.js';
import type { SpeedLoadOptions } from './plan.js';

/** To the process that has the model. It answers each request once. */
export type WorkerRequest =
  | { readonly kind: 'load'; readonly options: SpeedLoadOptions }
  | { readonly kind: 'measure'; readonly what: SpeedCase };

export type WorkerReply =
  | { readonly kind: 'loaded'; readonly seconds: Readonly<Record<LoadPhase, number>> }
  | {
      readonly kind: 'measured';
      readonly sample: RoundSample;
      /** Most memory the process ever had resident. */
      readonly peakRssBytes: number;
    }
  | { readonly kind: 'failed'; readonly error: PlainError };

/** Told while it loads. */
export interface LoadProgress {
  readonly kind: 'progress';
  readonly doneBytes?: number;
  readonly totalBytes?: number;
}

/** An error on its way between processes. */
export interface PlainError {
  /** Absent: not one of fdq's errors. */
  readonly code?: ErrorCode;
  readonly message: string;
  readonly param?: string;
  readonly suggestions: readonly string[];
}

export function toPlainError(error: unknown): PlainError {
  if (!(error instanceof FdqError)) {
    return { message: error instanceof Error ? error.message : String(error), suggestions: [] };
  }
  const { code, message, param, suggestions } = error;
  return { code, message, suggestions, ...(param === undefined ? {} : { param }) };
}

export function fromPlainError({ code, message, ...details }: PlainError): FdqError {
  return code === undefined || code === 'internal'
    ? new BugError(message)
    : new UserError(code, message, details);
}
