import { createHash } from 'node:crypto';
import path from 'node:path';
import type { Checkpoint } from '../hub/checkpoint.js';
import { openWeightFile } from '../hub/weight-file.js';

/** Headers of safetensors are at the start. */
const HEAD_BYTES = 1024 ** 2;
const NUM_SAMPLES = 64;
const SAMPLE_BYTES = 64 * 1024;

/**
 * SHA-256 that tells checkpoints apart without reading all of them: config.json, and of each weight file its name,
 * size, beginning and 64 pieces spread evenly. The same on every machine.
 */
export async function digestCheckpoint(checkpoint: Pick<Checkpoint, 'config' | 'files'>): Promise<string> {
  const hash = createHash('sha256');
  hash.update(JSON.stringify(checkpoint.config));
  for (const identity of checkpoint.files) {
    hash.update(JSON.stringify([path.basename(identity.path), identity.size]));
    const handle = await openWeightFile(identity.path, identity);
    try {
      for (const { offset, length } of piecesOf(identity.size)) {
        const piece = Buffer.alloc(length);
        const { bytesRead } = await handle.read(piece, 0, length, offset);
        hash.update(piece.subarray(0, bytesRead));
      }
    } finally {
      await handle.close();
    }
  }
  return hash.digest('hex');
}

function piecesOf(size: number): readonly { readonly offset: number; readonly length: number }[] {
  const samples = Array.from({ length: NUM_SAMPLES }, (_, index) => ({
    offset: HEAD_BYTES + Math.floor(((size - HEAD_BYTES) * index) / NUM_SAMPLES),
    length: SAMPLE_BYTES,
  }));
  const head = { offset: 0, length: Math.min(size, HEAD_BYTES) };
  return size <= HEAD_BYTES ? [head] : [head, ...samples];
}
