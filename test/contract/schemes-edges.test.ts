import { describe, expect, it } from 'vitest';
import { decodeNf4 } from '../../src/quant/numerics/nf4.js';
import type { WeightFormatName } from '../../src/quant/scheme.js';
import { makeMatrix } from '../helpers/native-weights.js';
import { FLOAT32_SLACK, findError, noise, quantize, QUANTIZING, scaleAt } from '../helpers/scheme-cases.js';

const SMALLEST_SUBNORMAL = 2 ** -149;
const LARGEST_BFLOAT16 = (2 - 2 ** -7) * 2 ** 127;

/** Byte of canonical codes that stand for zeros. */
const ZEROS: Readonly<Record<WeightFormatName, number>> = {
  int8: 0,
  int4: 0,
  // Two codes 7.
  nf4: 0x77,
  e2m1: 0,
  e4m3: 0,
  // Four codes 2 of the level 1, which a scale of 0 makes 0.
  int2: 0xaa,
};

interface Ties {
  /** Mapped to itself where the scale is 1. */
  readonly top: number;
  readonly values: readonly number[];
  readonly restored: readonly number[];
}

const INTEGER_TIES = { values: [0.5, 1.5, 2.5, -0.5, -1.5, -2.5], restored: [0, 2, 2, 0, -2, -2] };
const NF4_MIDPOINTS = Array.from({ length: 15 }, (_, i) =>
  Math.fround((decodeNf4(i) + decodeNf4(i + 1)) / 2),
);

const TIES: Readonly<Record<WeightFormatName, Ties>> = {
  int8: { top: 127, ...INTEGER_TIES },
  int4: { top: 7, ...INTEGER_TIES },
  e4m3: {
    top: 448,
    values: [1.0625, 1.1875, -1.0625, -1.1875, 17, 19],
    restored: [1, 1.25, -1, -1.25, 16, 20],
  },
  e2m1: {
    top: 6,
    values: [0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5, -0.25, -0.75, -1.25, -1.75, -2.5, -3.5, -5],
    restored: [0, 1, 1, 2, 2, 4, 4, 0, -1, -1, -2, -2, -4, -4],
  },
  // To the lower value.
  nf4: { top: 1, values: NF4_MIDPOINTS, restored: NF4_MIDPOINTS.map((_, i) => decodeNf4(i)) },
  // To the higher level.
  int2: { top: 3, values: [0, 2], restored: [1, 3] },
};

describe.each(QUANTIZING)('$name quantizes', (scheme) => {
  const { native } = scheme;

  it('zeros to zeros with scale 1', () => {
    const input = makeMatrix([130, 140], (at) => (at % 140 < 128 ? 0 : noise(at)));
    const restored = scheme.dequantize(input.tensor, quantize(scheme, input));
    expect(input.values.filter((value, at) => value === 0 && restored[at] !== 0)).toHaveLength(0);
    const zero = makeMatrix([130, 128], () => 0);
    const { codes, scales } = quantize(scheme, zero);
    expect(scales.every((scale) => scale === 1)).toBe(true);
    expect(codes.every((code) => code === ZEROS[native.format])).toBe(true);
    expect(scheme.dequantize(zero.tensor, quantize(scheme, zero)).every((value) => value === 0)).toBe(true);
  });

  it.each([0.375, -0.375])('a single element %s to its largest code', (value) => {
    const input = makeMatrix([1, 1], () => value);
    const restored = scheme.dequantize(input.tensor, quantize(scheme, input))[0] as number;
    expect(Math.abs(restored - value)).toBeLessThanOrEqual(FLOAT32_SLACK * Math.abs(value));
  });

  it('K = 1 to the scales its geometry has', () => {
    const input = makeMatrix([131, 1], (at) => at - 65);
    const { scales, blockScales } = quantize(scheme, input);
    expect(scales).toHaveLength({ '-1': 0, 0: 1, 1: 131, 128: 2 }[native.groupN]);
    const scaleBytes = native.block?.type === 'bfloat16' ? 2 : 1;
    expect(blockScales?.length).toBe(native.block === undefined ? undefined : 131 * scaleBytes);
    expect(findError(scheme, input)).toBeUndefined();
  });

  it('a ragged last group by its own maximum', () => {
    const k = 128 + 3;
    const input = makeMatrix([1, k], (at) => (at < 128 ? 100 : 0.5));
    const parts = quantize(scheme, input);
    const isWholeRow = native.block === undefined && native.groupK === 0;
    const found = scaleAt(scheme, parts, k, k - 1) / scaleAt(scheme, parts, k, 0);
    // Narrow scales are rounded, at worst to the power of two below.
    const tolerance = native.block === undefined ? 1e-6 : 1;
    expect(Math.abs(Math.log2(found / (isWholeRow ? 1 : 0.5 / 100)))).toBeLessThan(tolerance);
  });

  it('subnormal numbers without flushing them, and to 0 where the scale underflows', () => {
    const input = makeMatrix([2, 8], (at) => (at + 1) * 2 ** -131);
    const parts = quantize(scheme, input);
    const sizes = parts.scales.map(Math.abs);
    expect(sizes.every((size) => size > 0 && size < 2 ** -126)).toBe(true);
    expect(scheme.dequantize(input.tensor, parts).some((value) => value !== 0)).toBe(true);
    const tiny = makeMatrix([1, 4], () => SMALLEST_SUBNORMAL, 'float32');
    const restored = [...scheme.dequantize(tiny.tensor, quantize(scheme, tiny))];
    // The scale of nf4 is the largest magnitude itself: it underflows for no number.
    const expected = native.format === 'nf4' ? SMALLEST_SUBNORMAL : 0;
    expect(restored).toEqual([expected, expected, expected, expected]);
  });

  it('the largest numbers without an infinity', () => {
    const input = makeMatrix([3, 70], (at) => (at % 3 === 0 ? -1 : 1) * LARGEST_BFLOAT16 * 2 ** -(at % 5));
    const restored = scheme.dequantize(input.tensor, quantize(scheme, input));
    expect(restored.every((value) => Number.isFinite(value))).toBe(true);
    expect(findError(scheme, input)).toBeUndefined();
  });

  it('negative zero to zero, signed where the format has signed zeros', () => {
    const input = makeMatrix([1, 4], (at) => (at < 3 ? -0 : 1));
    const parts = quantize(scheme, input);
    const restored = scheme.dequantize(input.tensor, parts).subarray(0, 3);
    // The levels of int2 have no zero: it becomes the smallest positive one. A negative scale turns the sign.
    const scale = scaleAt(scheme, parts, 4, 0);
    const zero = native.format === 'int2' ? scale : 0 * scale;
    const expected = ['e4m3', 'e2m1'].includes(native.format) ? -0 : zero;
    for (const value of restored) expect(value).toBe(expected);
  });

  it('ties as its format says', () => {
    const { top, values, restored: expected } = TIES[native.format];
    // Many more of the largest magnitude, of both signs: a search for the scale finds nothing better either.
    const input = makeMatrix([1, 128], (at) => values[at - 1] ?? (at % 2 === 0 ? top : -top), 'float32');
    const parts = quantize(scheme, input);
    expect(Math.fround(scaleAt(scheme, parts, 128, 0))).toBe(native.search === true ? -1 : 1);
    const restored = [...scheme.dequantize(input.tensor, parts)].slice(1, values.length + 1);
    expect(restored.map((value) => value + 0)).toEqual(expected);
  });
});
