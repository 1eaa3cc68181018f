import type { StepBatch } from '../../src/runtime/model-runner.js';

/** A run of one sequence's tokens in a step: `ids` are appended after `start` cached positions. */
export interface Chunk {
  readonly ids: readonly number[];
  readonly start: number;
  /** KV blocks of the sequence, at least enough for start + ids.length positions. */
  readonly blocks: readonly number[];
  /** Indices into `ids` whose logits are wanted. */
  readonly rows: readonly number[];
}

/** Packs chunks of several sequences into one step. */
export function packStep(chunks: readonly Chunk[]): Omit<StepBatch, 'sampling'> {
  const stride = Math.max(...chunks.map((chunk) => chunk.blocks.length));
  const queryStarts = [0];
  const logitIndices: number[] = [];
  for (const chunk of chunks) {
    const base = queryStarts.at(-1) ?? 0;
    logitIndices.push(...chunk.rows.map((row) => base + row));
    queryStarts.push(base + chunk.ids.length);
  }
  return {
    tokenIds: Int32Array.from(chunks.flatMap((chunk) => chunk.ids)),
    positions: Int32Array.from(chunks.flatMap((chunk) => chunk.ids.map((_, i) => chunk.start + i))),
    queryStarts: Int32Array.from(queryStarts),
    contextLengths: Int32Array.from(chunks.map((chunk) => chunk.start + chunk.ids.length)),
    blockTables: Int32Array.from(
      chunks.flatMap((chunk) => [...chunk.blocks, ...Array<number>(stride - chunk.blocks.length).fill(0)]),
    ),
    blockTableStride: stride,
    logitIndices: Int32Array.from(logitIndices),
  };
}
