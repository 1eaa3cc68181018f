import { KV_BLOCK_SIZE } from '../runtime/kv-layout.js';
import type { StepBatch } from '../runtime/model-runner.js';

/** One token in block 0, which the engine overwrites before it is ever read. */
export function packWarmUpStep(): Omit<StepBatch, 'sampling'> {
  return packPrompt(Int32Array.of(0));
}

/** A prompt of distinct tokens from all over the vocabulary, with the logits of every position wanted. */
export function packProbeStep(vocabSize: number, tokens: number): Omit<StepBatch, 'sampling'> {
  return packPrompt(Int32Array.from({ length: tokens }, (_, i) => Math.floor((i * vocabSize) / tokens)));
}

function packPrompt(tokenIds: Int32Array): Omit<StepBatch, 'sampling'> {
  const tokens = tokenIds.length;
  const blocks = Math.ceil(tokens / KV_BLOCK_SIZE);
  const positions = Int32Array.from({ length: tokens }, (_, i) => i);
  return {
    tokenIds,
    positions,
    queryStarts: Int32Array.of(0, tokens),
    contextLengths: Int32Array.of(tokens),
    blockTables: Int32Array.from({ length: blocks }, (_, i) => i),
    blockTableStride: blocks,
    logitIndices: positions,
  };
}
