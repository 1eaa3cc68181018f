/** Token ids that look random and are the same in every run, so that builds are compared over the same work. */
export class RandomTokens {
  readonly #vocabSize: number;
  readonly #prefixes = new Map<number, { readonly ids: number[]; readonly source: Xorshift }>();
  /** Never repeats within a process, unlike the prefixes: what is fresh must not be found in a cache. */
  readonly #fresh = new Xorshift(1);

  constructor(vocabSize: number) {
    this.#vocabSize = vocabSize;
  }

  /** The first `length` ids of a sequence; a longer prefix begins with the shorter ones. */
  prefix(sequence: number, length: number): readonly number[] {
    let prefix = this.#prefixes.get(sequence);
    if (prefix === undefined) {
      prefix = { ids: [], source: new Xorshift(sequence + 2) };
      this.#prefixes.set(sequence, prefix);
    }
    const { ids, source } = prefix;
    while (ids.length < length) ids.push(source.below(this.#vocabSize));
    return ids.slice(0, length);
  }

  fresh(length: number): readonly number[] {
    return Array.from({ length }, () => this.#fresh.below(this.#vocabSize));
  }
}

/** xorshift32 (Marsaglia 2003). */
class Xorshift {
  #state: number;

  constructor(seed: number) {
    this.#state = Math.imul(seed, 0x9e3779b1) >>> 0;
  }

  below(bound: number): number {
    this.#state ^= this.#state << 13;
    this.#state ^= this.#state >>> 17;
    this.#state ^= this.#state << 5;
    return Math.floor(((this.#state >>> 0) / 2 ** 32) * bound);
  }
}
