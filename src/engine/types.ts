/** What the server (and bench) see of the engine. */

export interface SamplingParams {
  readonly temperature: number;
  readonly topP: number;
  /** 0: off. */
  readonly topK: number;
  readonly minP: number;
  readonly repetitionPenalty: number;
  readonly presencePenalty: number;
  readonly frequencyPenalty: number;
  readonly logitBias: ReadonlyMap<number, number>;
  readonly allowedTokenIds: readonly number[];
  /** Token sequences that must not appear in the output. */
  readonly badWords: readonly (readonly number[])[];
  /** Absent: drawn at random for the request. 64-bit. */
  readonly seed?: bigint;
  /** At least 1, or 0 to only score the prompt. */
  readonly maxTokens: number;
  readonly minTokens: number;
  readonly stop: readonly string[];
  readonly stopTokenIds: readonly number[];
  readonly includeStopStrInOutput: boolean;
  readonly ignoreEos: boolean;
  /** Choices generated from the prompt. */
  readonly n: number;
  /** Alternatives reported with each generated token; absent: no logprobs at all. 0: only the token itself. */
  readonly logprobs?: number;
  /** The same for prompt tokens. */
  readonly promptLogprobs?: number;
  readonly skipSpecialTokens: boolean;
  readonly spacesBetweenSpecialTokens: boolean;
}

export interface GenerationRequest {
  /** Unique among the requests under way. */
  readonly id: string;
  /** Non-empty; the last may be followed by at most maxModelLen - length generated ones. */
  readonly promptTokenIds: readonly number[];
  readonly params: SamplingParams;
  /** Requests share cached prefixes only within one salt. */
  readonly cacheSalt?: string;
  /** Lower is served first; default 0. */
  readonly priority?: number;
}

export interface TokenLogprob {
  readonly id: number;
  readonly logprob: number;
  /** 1 = most likely. */
  readonly rank: number;
  /** Most likely first. */
  readonly top: readonly { readonly id: number; readonly logprob: number }[];
}

export type FinishReason = 'stop' | 'length' | 'abort' | 'error';

/** What happened to one choice since the last output. Text lags behind tokens while a stop string may begin. */
export interface ChoiceDelta {
  readonly index: number;
  readonly tokenIds: readonly number[];
  readonly text: string;
  /** One entry per id of tokenIds when asked for. */
  readonly logprobs?: readonly TokenLogprob[];
  readonly finishReason: FinishReason | null;
  /** The stop string or stop token id that ended the choice, null for end-of-text or length. */
  readonly stopReason: string | number | null;
}

export type EngineOutput =
  /** Once, before any token: the request left the queue. */
  | { readonly kind: 'started'; readonly cachedTokens: number }
  /** Once, before the first token, when promptLogprobs was asked for; entry 0 is null. */
  | { readonly kind: 'prompt'; readonly logprobs: readonly (TokenLogprob | null)[] }
  | { readonly kind: 'delta'; readonly choice: ChoiceDelta };

export interface EngineInfo {
  /** Canonical scheme or configuration name, e.g. `block_wise_fp8`. */
  readonly scheme: string;
  /** 'cpu'. */
  readonly executionProvider: string;
  readonly maxModelLen: number;
  readonly vocabSize: number;
  readonly blockSize: number;
  readonly numBlocks: number;
  readonly maxNumSeqs: number;
  readonly maxNumBatchedTokens: number;
}

/** Of an engine's life: accepted = finished + cancelled + failed + those under way. */
export interface RequestCounters {
  readonly accepted: number;
  readonly finished: number;
  readonly cancelled: number;
  readonly failed: number;
}

export interface EngineStats {
  readonly running: number;
  readonly waiting: number;
  readonly kvBlocksUsed: number;
  readonly kvBlocksTotal: number;
  readonly requests?: RequestCounters & {
    /** Accepted and not ended. */
    readonly live: number;
  };
}

/** Monotonic clocks in seconds. */
export interface RequestTimings {
  readonly arrival: number;
  readonly scheduled: number;
  readonly firstToken: number | null;
  readonly finished: number;
}

/** Told about everything worth counting; must not throw. */
export interface EngineObserver {
  onStep(step: {
    readonly promptTokens: number;
    readonly generatedTokens: number;
    readonly seconds: number;
  }): void;
  onFirstToken(secondsSinceArrival: number): void;
  onInterToken(seconds: number): void;
  onPreemption(): void;
  /** Tokens looked up in the prefix cache and found there. */
  onPrefixQuery(queried: number, hit: number): void;
  onFinish(finish: {
    readonly reason: FinishReason;
    readonly promptTokens: number;
    readonly generatedTokens: number;
    readonly params: SamplingParams;
    readonly timings: RequestTimings;
  }): void;
}

export interface Engine {
  readonly info: EngineInfo;
  readonly alive: boolean;
  stats(): EngineStats;
  /**
   * Queues a request. Throws UserError `overloaded` (queue full), `shutting_down` or `engine_dead` at once;
   * an invalid request (ids out of the vocabulary, too long) is UserError `invalid_request` /
   * `context_length_exceeded`. The request ends within one step of `signal` aborting or of the iterator
   * being returned; its KV blocks are freed then. Iteration throws when the engine dies or this request fails.
   */
  generate(request: GenerationRequest, signal?: AbortSignal): AsyncIterable<EngineOutput>;
  /** Refuses new requests; resolves when the running ones are done or `graceMs` passed (the rest are aborted). */
  drain(graceMs: number): Promise<void>;
  close(): Promise<void>;
}

/** Turns one choice's ids into text, never emitting part of a character. Made by src/text. */
export interface TextStream {
  /** Text that is certain after this id; '' while a character is incomplete. */
  push(id: number): string;
  /** What is left when no more ids come. */
  end(): string;
}

export type TextStreamFactory = (options: {
  readonly skipSpecialTokens: boolean;
  readonly spacesBetweenSpecialTokens: boolean;
  /** Context that the first ids are decoded after. */
  readonly promptTokenIds: readonly number[];
}) => TextStream;
