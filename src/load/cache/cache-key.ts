import { createHash } from 'node:crypto';
import { stat } from 'node:fs/promises';
import type { Graph, Initializer } from '../../graph/ir.js';
import type { Checkpoint } from '../../hub/checkpoint.js';
import { FDQ_VERSION } from '../../version.js';
import { FORMAT_VERSION, LAYOUT_VERSION, ROUNDING_CONTRACT } from '../folder/manifest.js';
import { isMapped } from '../stream-weights.js';

/** Initializers that take work to produce; the others are mapped from the checkpoint with or without a cache. */
export function cachedInitializers(graph: Graph): readonly Initializer[] {
  return [...graph.initializers.values()].filter(
    (initializer) => initializer.data.kind !== 'inline' && !isMapped(initializer),
  );
}

/**
 * SHA-256 over everything the bytes of a graph's weights depend on: the checkpoint's files as the system sees them
 * (path, size, inode, times of last writing and of last change, which nobody can set back), each initializer's scheme,
 * sources and shape, and the versions of program, layout and rounding.
 */
export async function cacheKey(checkpoint: Pick<Checkpoint, 'files'>, graph: Graph): Promise<string> {
  const files = await Promise.all(checkpoint.files.map(({ path }) => describeFile(path)));
  const hash = createHash('sha256');
  hash.update(
    JSON.stringify({
      fdq: FDQ_VERSION,
      format: FORMAT_VERSION,
      layout: LAYOUT_VERSION,
      rounding: ROUNDING_CONTRACT,
      files,
    }),
  );
  for (const { name, dataType, shape, data } of cachedInitializers(graph)) {
    hash.update(JSON.stringify([name, dataType, shape, data], plainArrays));
  }
  return hash.digest('hex');
}

async function describeFile(path: string): Promise<readonly string[]> {
  const { size, mtimeNs, ctimeNs, ino } = await stat(path, { bigint: true });
  return [path, ...[size, mtimeNs, ctimeNs, ino].map(String)];
}

function plainArrays(_key: string, value: unknown): unknown {
  return ArrayBuffer.isView(value) ? [...(value as Int32Array)] : value;
}
