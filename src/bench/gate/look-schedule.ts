import type { RoundLimits } from './options.js';

/** Each look has half as many rounds more than the one before. */
const GROWTH = 1.5;

/**
 * Numbers of rounds at which an undecided comparison is looked at. Looking often finds chance: with n looks each
 * interval misses with a probability of 5 % / n, so that by Bonferroni's inequality all of them together miss with at
 * most 5 %, whenever one stops. Growing steps keep n small.
 */
export function scheduleLooks({ min, max }: Pick<RoundLimits, 'min' | 'max'>): readonly number[] {
  const looks: number[] = [];
  for (let rounds = min; rounds < max; rounds = Math.ceil(rounds * GROWTH)) looks.push(rounds);
  return [...looks, max];
}
