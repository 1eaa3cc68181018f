import type { StepBatch } from '../runtime/model-runner.js';

/** One token in block 0, which the engine overwrites before it is ever read. */
export function packWarmUpStep(): Omit<StepBatch, 'sampling'> {
  return {
    tokenIds: Int32Array.of(0),
    positions: Int32Array.of(0),
    queryStarts: Int32Array.of(0, 1),
    contextLengths: Int32Array.of(1),
    blockTables: Int32Array.of(0),
    blockTableStride: 1,
    logitIndices: Int32Array.of(0),
  };
}
