import type { KvCacheOptions, KvDataType } from './addon.js';

/** Positions in a KV block: kKvBlockSize of custom-ops/include/fdq/kv_cache.h. */
export const KV_BLOCK_SIZE = 16;

/** What a KV pool holds for each position. */
export type KvShape = Pick<KvCacheOptions, 'numLayers' | 'numKvHeads' | 'headDim'>;

/** Bytes of one head's key (or value) of one token without its scale, from a head size and that rounded up to 16. */
const CODE_BYTES: Readonly<Record<KvDataType, (headDim: number, padded: number) => number>> = {
  float32: (headDim) => 4 * headDim,
  bfloat16: (headDim) => 2 * headDim,
  int8: (_, padded) => padded,
  fp8: (_, padded) => padded,
  int4: (_, padded) => padded / 2,
};

const PADDED_TO = 16;
const SCALE_BYTES = 4;

/** Bytes one token takes in the KV pool: keys and values of all layers, with their scales. */
export function kvBytesPerToken({ numLayers, numKvHeads, headDim }: KvShape, type: KvDataType): number {
  const codes = CODE_BYTES[type](headDim, Math.ceil(headDim / PADDED_TO) * PADDED_TO);
  const scale = type === 'float32' || type === 'bfloat16' ? 0 : SCALE_BYTES;
  return numLayers * 2 * numKvHeads * (codes + scale);
}
