import { UserError } from '../../errors.js';
import type { GateCondition } from './conditions.js';

/** Figures that the flags of a run leave out: no verdict about them is possible. */
export interface LeftOut {
  readonly metrics: readonly string[];
  /** What leaves them out, as the end of a sentence: `-n 0 leaves decoding out`. */
  readonly reason: string;
  /** A whole sentence. */
  readonly suggestion: string;
}

/**
 * Refuses conditions about figures that no scenario will have.
 * @throws UserError `usage` naming condition and reason
 */
export function refuseLeftOut(conditions: readonly GateCondition[], leftOut: readonly LeftOut[]): void {
  for (const { text, metric } of conditions) {
    const found = leftOut.find(({ metrics }) => metrics.includes(metric.id));
    if (found === undefined) continue;
    throw new UserError(
      'usage',
      `${JSON.stringify(text)} is about ${metric.id}, which is not measured: ${found.reason}.`,
      { param: '--fail-if', suggestions: [found.suggestion, 'Or leave the condition out.'] },
    );
  }
}
