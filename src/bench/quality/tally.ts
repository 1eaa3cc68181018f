import { quantile } from 'simple-statistics';
import { UserError } from '../../errors.js';
import type { Scores } from '../../runtime/addon.js';

/** Share of tokens whose divergence is at most `klP99`. */
const TAIL = 0.99;

/** Means over the scored tokens, in nats and shares. */
export interface TextScores {
  readonly scored: number;
  readonly nll: number;
  /** exp of nll. */
  readonly perplexity: number;
  /** Null without a reference. */
  readonly divergence: { readonly kl: number; readonly klP99: number; readonly top1: number } | null;
}

/** Adds up what a model's rows score. */
export class Tally {
  readonly #model: string;
  readonly #divergences: number[] = [];
  #nll = 0;
  #agreed = 0;
  #scored = 0;

  /** @param model how errors name it */
  constructor(model: string) {
    this.#model = model;
  }

  get scored(): number {
    return this.#scored;
  }

  /** @throws UserError `runtime_failed` when the model or the reference gave no distribution */
  add({ nll, divergence, agrees }: Scores): void {
    for (const [i, value] of nll.entries()) {
      const kl = divergence[i] ?? NaN;
      if (Number.isNaN(value) || Number.isNaN(kl)) throw notFinite(this.#model, this.#scored + i);
      this.#nll += value;
      this.#divergences.push(kl);
      this.#agreed += agrees[i] ?? 0;
    }
    this.#scored += nll.length;
  }

  /** @param hasReference what was scored was held against other rows */
  result(hasReference: boolean): TextScores {
    const nll = this.#nll / this.#scored;
    const kl = this.#divergences.reduce((sum, value) => sum + value, 0) / this.#scored;
    return {
      scored: this.#scored,
      nll,
      perplexity: Math.exp(nll),
      divergence: hasReference
        ? { kl, klP99: quantile(this.#divergences, TAIL), top1: this.#agreed / this.#scored }
        : null,
    };
  }
}

function notFinite(model: string, row: number): UserError {
  return new UserError(
    'runtime_failed',
    `Expected finite logits of ${model} but row ${row} of the scored tokens has a NaN or nothing else than infinities.`,
    { suggestions: ['Check the weights with fdq inspect --measure, or try --dtype float32.'] },
  );
}
