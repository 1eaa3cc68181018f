import type { SpeedSettings } from '../../cli/bench-options.js';

/** What `fdq bench` is asked for: every combination of the lists is measured. */
export interface SpeedOptions extends SpeedSettings {
  /** FDQ_ISA */
  readonly isa?: string | undefined;
}

/** What is measured of a loaded model. */
export interface SpeedCase {
  readonly promptTokens: number;
  readonly steps: number;
  /** Tokens of each sequence in the cache before anything is measured. */
  readonly depth: number;
  /** Decoded together; the prompt is measured alone. */
  readonly sequences: number;
}
