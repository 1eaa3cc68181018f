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

/** When a comparison without a last look is looked at, and how often each of its intervals may miss. */
export class OpenLooks {
  #count = 0;
  #rounds = 0;

  /** @param rounds so far */
  isDue(rounds: number, first: number): boolean {
    return rounds >= (this.#count === 0 ? first : this.#rounds * GROWTH);
  }

  take(rounds: number): void {
    if (rounds === this.#rounds) return;
    this.#count++;
    this.#rounds = rounds;
  }

  /** Of all looks together `alpha`, as the sum of 1 / (k (k + 1)) over all k is 1: the first gets half of it. */
  alpha(alpha: number): number {
    const k = Math.max(1, this.#count);
    return alpha / (k * (k + 1));
  }
}
