import type {
  ChoiceDelta,
  Engine,
  EngineInfo,
  EngineOutput,
  EngineStats,
  FinishReason,
  GenerationRequest,
  TextStreamFactory,
  TokenLogprob,
} from '../../src/engine/types.js';
import { UserError } from '../../src/errors.js';

export interface FakeEngineOptions {
  readonly streams: TextStreamFactory;
  readonly info?: Partial<EngineInfo>;
  /** Ids a choice generates before it stops by itself; default: none, it runs to maxTokens with id 1. */
  readonly script?: (request: GenerationRequest, choice: number) => readonly number[];
  /** Requests, or those it holds for, wait for the test to drive them. */
  readonly isManual?: boolean | ((request: GenerationRequest) => boolean);
  readonly maxQueued?: number;
}

export const FAKE_INFO: EngineInfo = {
  scheme: 'wint8',
  executionProvider: 'cpu',
  maxModelLen: 256,
  vocabSize: 512,
  blockSize: 16,
  numBlocks: 64,
  maxNumSeqs: 8,
  maxNumBatchedTokens: 256,
};

/** A logprob that is the same number wherever the token is reported at that position. */
export function fakeLogprob(id: number, position: number, numTop: number): TokenLogprob {
  const value = (other: number): number => -(((other * 7 + position * 3) % 13) / 7) - 0.1;
  const top = Array.from({ length: numTop }, (_, i) => (i === 0 ? id : (id + i) % FAKE_INFO.vocabSize))
    .map((other) => ({ id: other, logprob: value(other) }))
    .sort((a, b) => b.logprob - a.logprob);
  return { id, logprob: value(id), rank: 1, top };
}

/** One request as the test sees and, in manual mode, drives it. */
export class FakeRequest {
  readonly request: GenerationRequest;
  readonly signal: AbortSignal | undefined;
  /** Resolves when the server gave the request up. */
  readonly aborted: Promise<void>;
  isDone = false;
  readonly #pending: EngineOutput[] = [];
  readonly #streams: TextStreamFactory;
  readonly #texts = new Map<number, ReturnType<TextStreamFactory>>();
  #failure: Error | null = null;
  #wake: () => void = () => undefined;

  constructor(request: GenerationRequest, signal: AbortSignal | undefined, streams: TextStreamFactory) {
    this.request = request;
    this.signal = signal;
    this.#streams = streams;
    this.aborted = new Promise((resolve) => {
      signal?.addEventListener('abort', () => {
        resolve();
        this.#wake();
      });
    });
  }

  start(cachedTokens = 0): void {
    this.#push({ kind: 'started', cachedTokens });
  }

  scorePrompt(): void {
    const { promptTokenIds, params } = this.request;
    const logprobs = promptTokenIds.map((id, i) =>
      i === 0 ? null : fakeLogprob(id, i, params.promptLogprobs ?? 0),
    );
    this.#push({ kind: 'prompt', logprobs });
  }

  emit(ids: readonly number[], index = 0, finishReason: FinishReason | null = null): void {
    const text = this.#textOf(index);
    const pushed = ids.map((id) => text.push(id)).join('');
    this.#delta({ index, ids, text: finishReason === null ? pushed : pushed + text.end(), finishReason });
    if (finishReason !== null && index === this.request.params.n - 1) this.end();
  }

  fail(error: Error): void {
    this.#failure = error;
    this.#wake();
  }

  end(): void {
    this.isDone = true;
    this.#wake();
  }

  async *outputs(): AsyncGenerator<EngineOutput> {
    for (;;) {
      if (this.signal?.aborted === true) return;
      const next = this.#pending.shift();
      if (next !== undefined) yield next;
      else if (this.#failure !== null) throw this.#failure;
      else if (this.isDone) return;
      else await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }

  #textOf(index: number): ReturnType<TextStreamFactory> {
    const known = this.#texts.get(index);
    if (known !== undefined) return known;
    const { params, promptTokenIds } = this.request;
    const made = this.#streams({ ...params, promptTokenIds });
    this.#texts.set(index, made);
    return made;
  }

  #delta(parts: {
    index: number;
    ids: readonly number[];
    text: string;
    finishReason: FinishReason | null;
  }): void {
    const { index, ids, text, finishReason } = parts;
    const { logprobs } = this.request.params;
    const choice: ChoiceDelta = {
      index,
      tokenIds: ids,
      text,
      finishReason,
      stopReason: null,
      ...(logprobs === undefined ? {} : { logprobs: ids.map((id, i) => fakeLogprob(id, i, logprobs)) }),
    };
    this.#push({ kind: 'delta', choice });
  }

  #push(output: EngineOutput): void {
    this.#pending.push(output);
    this.#wake();
  }
}

/** The engine's contract without a model, for tests of the protocol. */
export class FakeEngine implements Engine {
  readonly info: EngineInfo;
  alive = true;
  isDraining = false;
  readonly requests: FakeRequest[] = [];
  readonly #options: FakeEngineOptions;
  #waiting: ((request: FakeRequest) => void)[] = [];

  constructor(options: FakeEngineOptions) {
    this.#options = options;
    this.info = { ...FAKE_INFO, ...options.info };
  }

  stats(): EngineStats {
    const running = this.requests.filter(({ isDone, signal }) => !isDone && signal?.aborted !== true).length;
    return { running, waiting: 0, kvBlocksUsed: running, kvBlocksTotal: this.info.numBlocks };
  }

  /** The next request that arrives. */
  nextRequest(): Promise<FakeRequest> {
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  generate(request: GenerationRequest, signal?: AbortSignal): AsyncIterable<EngineOutput> {
    if (!this.alive) throw new UserError('engine_dead', 'The engine is dead.');
    if (this.isDraining) throw new UserError('shutting_down', 'The engine drains.');
    if (this.stats().running >= (this.#options.maxQueued ?? Infinity)) {
      throw new UserError('overloaded', 'The queue is full.', { suggestions: ['Try again.'] });
    }
    const fake = new FakeRequest(request, signal, this.#options.streams);
    this.requests.push(fake);
    this.#waiting.shift()?.(fake);
    const { isManual } = this.#options;
    const waits = typeof isManual === 'function' ? isManual(request) : isManual === true;
    if (!waits) this.#play(fake);
    return fake.outputs();
  }

  #play(fake: FakeRequest): void {
    const { params } = fake.request;
    fake.start();
    if (params.promptLogprobs !== undefined) fake.scorePrompt();
    for (let choice = 0; choice < params.n; choice++) {
      const scripted = this.#options.script?.(fake.request, choice);
      const ids = (scripted ?? Array.from({ length: params.maxTokens }, () => 1)).slice(0, params.maxTokens);
      const reason =
        scripted !== undefined && scripted.length <= params.maxTokens && params.maxTokens > 0
          ? 'stop'
          : 'length';
      ids.slice(0, -1).forEach((id) => fake.emit([id], choice));
      fake.emit(ids.slice(-1), choice, reason);
    }
  }

  async drain(graceMs: number): Promise<void> {
    this.isDraining = true;
    if (graceMs === 0) this.requests.forEach((fake) => fake.isDone || fake.emit([], 0, 'abort'));
  }

  async close(): Promise<void> {
    this.alive = false;
  }
}
