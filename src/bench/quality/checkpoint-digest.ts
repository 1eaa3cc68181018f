import { createHash } from 'node:crypto';
import { basename } from 'node:path';
import type { Checkpoint } from '../../hub/checkpoint.js';
import { openWeightFile, readExactly } from '../../hub/weight-file.js';

const SAMPLES = 64;
const SAMPLE_BYTES = 64 * 1024;

/**
 * SHA-256 that tells checkpoints apart on any machine in a moment: over config.json and, of each weight file, name,
 * size and 64 pieces of 64 KiB spread evenly, the first and the last bytes among them.
 */
export async function digestCheckpoint(checkpoint: Pick<Checkpoint, 'config' | 'files'>): Promise<string> {
  const hash = createHash('sha256').update(JSON.stringify(checkpoint.config));
  for (const file of checkpoint.files) {
    hash.update(JSON.stringify([basename(file.path), file.size]));
    const handle = await openWeightFile(file.path, file);
    try {
      for (const offset of sampleOffsets(file.size)) {
        const bytes = new Uint8Array(Math.min(SAMPLE_BYTES, file.size - offset));
        await readExactly(handle, bytes, offset);
        hash.update(bytes);
      }
    } finally {
      await handle.close();
    }
  }
  return hash.digest('hex');
}

function sampleOffsets(size: number): readonly number[] {
  const last = size - SAMPLE_BYTES;
  if (last <= 0) return [0];
  const offsets = Array.from({ length: SAMPLES }, (_, i) => Math.floor((last * i) / (SAMPLES - 1)));
  return [...new Set(offsets)];
}
