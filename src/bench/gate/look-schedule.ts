/** Each look has half as many rounds more than the one before. */
const GROWTH = 1.5;

/** A look at a scenario, and how often its intervals may miss. */
export interface Look {
  readonly rounds: number;
  readonly alpha: number;
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
    return shareOf(alpha, Math.max(1, this.#count));
  }

  /**
   * The looks that are left when each is taken as soon as it is due, the last at `most` rounds.
   * @param alpha of all looks together
   */
  ahead(most: number, alpha: number): readonly Look[] {
    const looks: Look[] = [];
    for (let rounds = this.#rounds, k = this.#count + 1; rounds < most; k++) {
      rounds = Math.min(most, Math.ceil(Math.max(1, rounds) * GROWTH));
      looks.push({ rounds, alpha: shareOf(alpha, k) });
    }
    return looks;
  }
}

function shareOf(alpha: number, k: number): number {
  return alpha / (k * (k + 1));
}
