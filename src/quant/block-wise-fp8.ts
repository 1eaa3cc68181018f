import { decodeE4m3, encodeE4m3, E4M3_MAX } from './numerics/fp8.js';
import { quantizeTiles } from './numerics/tiles.js';
import type { Rows, TileCodes } from './numerics/tiles.js';
import type { QuantKey, SchemeFamily } from './scheme.js';
import { createTileScheme } from './tile-scheme.js';

const TILE = 128;

/** 3 mantissa bits: half a step is 2^-4 of a normal number; subnormals are 2^-9 apart. */
const E4M3_ERROR = { relative: 2 ** -4, ofScale: 2 ** -10 };

const activation: QuantKey = {
  element: 'float8e4m3fn',
  scaleType: 'float32',
  group: [1, TILE],
  dynamic: true,
  symmetric: true,
  maxError: E4M3_ERROR,
};

/** e4m3 weights in 128 x 128 tiles and activations in groups of 128, as DeepSeek-V3 introduced them. */
export const blockWiseFp8: SchemeFamily = Object.freeze({
  name: 'block_wise_fp8',
  variants: [
    createTileScheme({
      name: 'block_wise_fp8',
      aliases: ['fp8_per_block', 'fp8_blockwise'],
      summary: 'e4m3 weights, one scale a 128 x 128 tile; inputs rounded to e4m3 in groups of 128',
      activation,
      activationRule: 'e4m3_group128',
      native: { format: 'e4m3', groupN: 128, groupK: TILE },
      weight: { element: 'float8e4m3fn', maxError: E4M3_ERROR },
      maxCode: E4M3_MAX,
      encode: encodeE4m3,
      decode: decodeE4m3,
    }),
  ] as const,
});

/**
 * What a block-wise FP8 layer does to its input: each token's groups of 128 columns to e4m3 with a scale of
 * amax / 448 (1 where that is 0).
 * @returns codes [tokens, k], scales [tokens, ceil(k / 128)]
 * @throws UserError `non_finite_weight` for a NaN or infinity.
 */
export function quantizeActivationE4m3(x: Omit<Rows, 'firstRow'>): TileCodes {
  return quantizeTiles(
    { ...x, firstRow: 0 },
    { rows: 1, columns: TILE, maxCode: E4M3_MAX, encode: encodeE4m3 },
  );
}
