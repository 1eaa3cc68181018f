import { BugError } from '../../errors.js';
import type { Engine } from '../../engine/types.js';
import { GREEDY } from '../greedy.js';
import { RandomTokens } from './random-tokens.js';
import type { SpeedCase } from './options.js';

/** One repetition. */
export interface RoundSample {
  /** Absent with -p 0. */
  readonly prefill?: {
    readonly tokensPerSecond: number;
    /** From the request to its first token. */
    readonly ttftMs: number;
  };
  /** Absent with -n 0. */
  readonly decode?: {
    /** Of all sequences together. */
    readonly tokensPerSecond: number;
    /** Between the tokens of a sequence, all sequences. */
    readonly gapsMs: readonly number[];
  };
}

/** Cached prefixes are computed again when others have taken their blocks. */
const MAX_ATTEMPTS = 3;

interface Generated {
  readonly cachedTokens: number;
  /** When each token came, milliseconds. */
  readonly times: readonly number[];
}

/**
 * Measures through an engine, as a server would run it. The depth of a case is a prefix of each sequence that the
 * engine's prefix cache holds; what is measured are fresh random tokens after it.
 */
export class RoundMeter {
  readonly #engine: Engine;
  readonly #clock: () => number;
  readonly #tokens: RandomTokens;
  #numRequests = 0;
  #primed: SpeedCase | undefined;

  /** @param clock monotonic milliseconds */
  constructor(engine: Engine, clock: () => number = () => performance.now()) {
    this.#engine = engine;
    this.#clock = clock;
    this.#tokens = new RandomTokens(engine.info.vocabSize);
  }

  /** @throws what the engine throws; the signal's reason when it is aborted */
  async measure(what: SpeedCase, signal: AbortSignal): Promise<RoundSample> {
    for (let attempt = 0; attempt < MAX_ATTEMPTS; attempt++) {
      if (this.#primed !== what) await this.#prime(what, signal);
      const prefill = what.promptTokens === 0 ? undefined : await this.#prefill(what, signal);
      const decode = what.steps === 0 ? undefined : await this.#decode(what, signal);
      if (prefill !== null && decode !== null) {
        return { ...(prefill === undefined ? {} : { prefill }), ...(decode === undefined ? {} : { decode }) };
      }
      this.#primed = undefined;
    }
    throw new BugError(`the KV pool does not keep ${what.sequences} prefixes of ${what.depth} tokens`);
  }

  /** Puts the prefixes into the cache. */
  async #prime(what: SpeedCase, signal: AbortSignal): Promise<void> {
    if (what.depth > 0) {
      const prompts = Array.from({ length: what.sequences }, (_, index) =>
        this.#prompt(index, what.depth, 1),
      );
      await Promise.all(prompts.map((prompt) => this.#generate(prompt, 1, signal)));
    }
    this.#primed = what;
  }

  /** Null when the prefix was not in the cache. */
  async #prefill(what: SpeedCase, signal: AbortSignal): Promise<RoundSample['prefill'] | null> {
    const { promptTokens, depth } = what;
    const prompt = this.#prompt(0, depth, promptTokens);
    const began = this.#clock();
    const { cachedTokens, times } = await this.#generate(prompt, 1, signal);
    if (cachedTokens !== depth) return null;
    const ttftMs = (times[0] as number) - began;
    return { ttftMs, tokensPerSecond: (promptTokens * 1000) / ttftMs };
  }

  /** From the first token of the last sequence to begin, which is the same step for all of them. */
  async #decode(what: SpeedCase, signal: AbortSignal): Promise<RoundSample['decode'] | null> {
    const { depth, sequences, steps } = what;
    const prompts = Array.from({ length: sequences }, (_, index) => this.#prompt(index, depth, 1));
    const runs = await Promise.all(prompts.map((prompt) => this.#generate(prompt, steps + 1, signal)));
    if (runs.some(({ cachedTokens }) => cachedTokens !== depth)) return null;
    const began = Math.max(...runs.map(({ times }) => times[0] as number));
    const ended = Math.max(...runs.map(({ times }) => times.at(-1) as number));
    const numTokens = runs.reduce((sum, { times }) => sum + times.filter((time) => time > began).length, 0);
    const gapsMs = runs.flatMap(({ times }) => times.slice(1).map((time, i) => time - (times[i] as number)));
    return { tokensPerSecond: (numTokens * 1000) / (ended - began), gapsMs };
  }

  #prompt(sequence: number, depth: number, numFresh: number): readonly number[] {
    return [...this.#tokens.prefix(sequence, depth), ...this.#tokens.fresh(numFresh)];
  }

  async #generate(prompt: readonly number[], maxTokens: number, signal: AbortSignal): Promise<Generated> {
    signal.throwIfAborted();
    const id = `bench-${this.#numRequests++}`;
    const request = { id, promptTokenIds: prompt, params: { ...GREEDY, maxTokens, ignoreEos: true } };
    const times: number[] = [];
    let cachedTokens = 0;
    for await (const output of this.#engine.generate(request, signal)) {
      if (output.kind === 'started') ({ cachedTokens } = output);
      if (output.kind !== 'delta') continue;
      const now = this.#clock();
      times.push(...output.choice.tokenIds.map(() => now));
    }
    signal.throwIfAborted();
    if (times.length !== maxTokens)
      throw new BugError(`${times.length} of ${maxTokens} tokens were generated`);
    return { cachedTokens, times };
  }
}
