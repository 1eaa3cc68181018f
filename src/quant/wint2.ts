import { createBlockScheme } from './block-scheme.js';
import { decodeBf16, encodeBf16 } from './numerics/bf16.js';
import { decodeInt2, encodeInt2, INT2_MAX } from './numerics/int2.js';
import { divideFloat32 } from './numerics/rounding.js';
import { searchScale } from './numerics/scale-search.js';
import { absoluteMaximum } from './numerics/tiles.js';
import type { SchemeFamily } from './scheme.js';

const GROUP = 64;
/** Scales tried, from the largest magnitude down to 17/64 of it. */
const CANDIDATES = 48;
/** Mantissa bits of float32 that a scale does not use: 5 explicit ones stay. */
const DROPPED_BITS = 18;
const DROPPED_HALF_MINUS_ONE = 2 ** (DROPPED_BITS - 1) - 1;
/** amax / scale at the last candidate, rounded down by at most 2^-6, less the largest level. */
const SEARCH_ERROR = (INT2_MAX * (64 / 17)) / (1 - 2 ** -6) - INT2_MAX;

const float = new Float32Array(1);
const bits = new Uint32Array(float.buffer);

/**
 * 2-bit weights of the levels -3, -1, 1 and 3 with a bfloat16 scale for 64 columns that has the least squared error
 * of 48. A scale has at most 6 significant bits, so that three times it is exact in bfloat16 too. Levels are even
 * in number and 0 is none of them: an all-zero group has scale 0.
 */
export const wint2: SchemeFamily = Object.freeze({
  name: 'wint2',
  variants: [
    createBlockScheme({
      name: 'wint2',
      aliases: ['w2a16'],
      summary: '2-bit weights, one searched bfloat16 scale for 64 inputs; made by fdq convert',
      native: { format: 'int2', groupN: -1, groupK: 0, block: { columns: GROUP, type: 'bfloat16' } },
      weight: { element: 'int2', maxError: { relative: 0, ofScale: SEARCH_ERROR } },
      online: false,
      findScale: (values) =>
        encodeBf16(
          searchScale(values, {
            first: (group) => divideFloat32(absoluteMaximum(group), INT2_MAX),
            candidates: CANDIDATES,
            round: roundScale,
            encode: encodeInt2,
            decode: decodeInt2,
            fallback: 0,
          }),
        ),
      decodeScale: decodeBf16,
      encode: encodeInt2,
      decode: decodeInt2,
    }),
  ] as const,
});

/** float32 to 6 significant bits, ties to even; infinite where three times the scale is beyond float32. */
function roundScale(scale: number): number {
  float[0] = scale;
  const word = bits[0] as number;
  const isOdd = (word >>> DROPPED_BITS) & 1;
  bits[0] = ((word + DROPPED_HALF_MINUS_ONE + isOdd) >>> DROPPED_BITS) << DROPPED_BITS;
  const rounded = float[0];
  return Number.isFinite(Math.fround(INT2_MAX * rounded)) ? rounded : Infinity;
}
