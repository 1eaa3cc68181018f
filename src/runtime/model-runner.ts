import type { SamplingBatch, SamplingResult } from './addon.js';

/** One engine step: packed tokens of several sequences. */
export interface StepBatch {
  /** [tokens] */
  readonly tokenIds: Int32Array;
  /** [tokens]: position of each token in its sequence. */
  readonly positions: Int32Array;
  /** [sequences + 1]: tokens of sequence s are `queryStarts[s] .. queryStarts[s + 1] - 1`. */
  readonly queryStarts: Int32Array;
  /** [sequences]: positions in the cache after this step. */
  readonly contextLengths: Int32Array;
  /** [sequences, blockTableStride]: KV block of positions blockSize*i ... */
  readonly blockTables: Int32Array;
  readonly blockTableStride: number;
  /** [rows]: packed-token indices whose logits are wanted, ascending; at least one, at most `maxLogitRows`. */
  readonly logitIndices: Int32Array;
  readonly sampling: SamplingBatch;
}

/** What the engine needs of a loaded model. One step at a time. */
export interface ModelRunner {
  readonly vocabSize: number;
  /** Longest sequence the model can address. */
  readonly maxModelLen: number;
  /** Positions in a KV block. */
  readonly blockSize: number;
  /** KV blocks in the pool; block ids are 0 .. numBlocks - 1. */
  readonly numBlocks: number;
  /** Largest number of logits rows of a step. */
  readonly maxLogitRows: number;
  /** Largest number of packed tokens of a step. */
  readonly maxBatchedTokens: number;
  step(batch: StepBatch): Promise<SamplingResult>;
  close(): Promise<void>;
}

/** The same model behind other methods: one that must not be closed yet, or whose steps are watched. */
export function wrapRunner(
  runner: ModelRunner,
  replaced: Partial<Pick<ModelRunner, 'step' | 'close'>>,
): ModelRunner {
  return {
    vocabSize: runner.vocabSize,
    maxModelLen: runner.maxModelLen,
    blockSize: runner.blockSize,
    numBlocks: runner.numBlocks,
    maxLogitRows: runner.maxLogitRows,
    maxBatchedTokens: runner.maxBatchedTokens,
    step: (batch) => runner.step(batch),
    close: () => runner.close(),
    ...replaced,
  };
}
