import type { Look } from './look-schedule.js';
import { hasRankSumInterval } from './statistics.js';

/** Samples of a figure that are too few to be compared with those of a stored baseline. */
export interface FewSamples {
  /** Whether a look that is still to come may know an interval. */
  readonly isOpen: boolean;
  /** What it would take, as the end of a sentence. */
  readonly reason: string;
}

/**
 * What it takes to compare a figure with a stored one. Whether there is an interval depends on nothing but how many
 * samples there are on either side; more of this run are taken only at looks that allow ever less.
 * @param stored samples of the baseline, at least one
 * @param present the look that knows no interval
 * @param ahead looks that may come; none: nothing is repeated
 */
export function describeFewSamples(stored: number, present: Look, ahead: readonly Look[]): FewSamples {
  const enough = ahead.find(({ rounds, alpha }) => hasRankSumInterval(rounds, stored, alpha));
  const needed = leastStored(present);
  if (enough !== undefined) {
    return {
      isOpen: true,
      reason: `with ${stored} in the baseline it takes ${enough.rounds} here, or ${needed} there`,
    };
  }
  const most = ahead.at(-1)?.rounds;
  const reason =
    most === undefined
      ? `with ${present.rounds} here the baseline needs ${needed} and has ${stored}`
      : `the baseline has ${stored} and needs ${needed}, and up to ${most} here make up for none`;
  return { isOpen: false, reason };
}

/** Samples of a baseline that are enough for a look. */
function leastStored({ rounds, alpha }: Look): number {
  let stored = 1;
  while (!hasRankSumInterval(rounds, stored, alpha)) stored++;
  return stored;
}
