/** Each look has half as many rounds more than the one before. */
const GROWTH = 1.5;

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
