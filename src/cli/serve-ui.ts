import type { Logger } from 'pino';

/** What happens between the command and the ready line, in order. */
export type PhaseName = 'locate' | 'plan' | 'quantize' | 'build' | 'warm_up';

export type PhaseState = 'start' | 'progress' | 'done' | 'skipped';

export interface PhaseDetail {
  /** Bytes processed so far, of `totalBytes`; rate and remaining time are derived. */
  readonly doneBytes?: number;
  readonly totalBytes?: number;
  /** A few words shown beside the phase, e.g. a file name or a result. */
  readonly message?: string;
}

/** How the serving service talks to whoever started it. Nothing here writes to stdout. */
export interface ServeUi {
  /** Reports may come at any rate; what is shown is throttled. */
  phase(name: PhaseName, state: PhaseState, detail?: PhaseDetail): void;
  warn(line: string): void;
  info(line: string): void;
  readonly log: Logger;
}
