import { describe, expect, it } from 'vitest';
import { divideFloat32, roundHalfToEven } from '../../../../src/quant/numerics/rounding.js';
import { extremeOf, searchScale } from '../../../../src/quant/numerics/scale-search.js';
import type { ScaleSearch } from '../../../../src/quant/numerics/scale-search.js';
import { absoluteMaximum } from '../../../../src/quant/numerics/tiles.js';

const SEARCH: ScaleSearch = {
  first: (values) => divideFloat32(absoluteMaximum(values), 2),
  candidates: 33,
  round: (scale) => scale,
  encode: (quotient) => Math.max(-2, Math.min(2, roundHalfToEven(quotient))) & 0xff,
  decode: (code) => (code << 24) >> 24,
  fallback: 42,
};

describe('searchScale', () => {
  it('clips an outlier where the rest gains more', () => {
    // 4 -> 2 costs 1 (scale 1.5 restores 3), but 1000 values of 1.5 become exact.
    const values = Float32Array.from({ length: 1001 }, (_, at) => (at === 0 ? 4 : 1.5));
    expect(searchScale(values, SEARCH)).toBe(1.5);
    expect(searchScale(values, { ...SEARCH, candidates: 1 })).toBe(2);
  });

  it('keeps the largest scale of equal errors', () => {
    expect(searchScale(Float32Array.of(4, -4, 2, 0), SEARCH)).toBe(2);
    const exact = { ...SEARCH, encode: () => 0 };
    expect(searchScale(Float32Array.of(4, 1), exact)).toBe(2);
  });

  it('tries negative scales where the first is one', () => {
    const values = Float32Array.from({ length: 1001 }, (_, at) => (at === 0 ? 4 : 1.5));
    const first = (group: Float32Array): number => divideFloat32(extremeOf(group), -2);
    expect(searchScale(values, { ...SEARCH, first })).toBe(-1.5);
    expect(searchScale(Float32Array.of(-4, 4, 2, 0), { ...SEARCH, first })).toBe(2);
  });

  it('tries only scales the format holds', () => {
    const values = Float32Array.from({ length: 1001 }, (_, at) => (at === 0 ? 4 : 1.5));
    const tried: number[] = [];
    const round = (scale: number): number => {
      tried.push(scale);
      return scale > 1.75 ? Infinity : scale > 1.25 ? Math.round(scale * 4) / 4 : 0;
    };
    expect(searchScale(values, { ...SEARCH, round })).toBe(1.5);
    expect(tried).toEqual(Array.from({ length: 33 }, (_, c) => Math.fround(2 * ((64 - c) / 64))));
  });

  it.each([
    ['zeros', [0, -0]],
    ['numbers whose scale underflows', [2 ** -149, 0]],
  ])('falls back for %s', (_, values) => {
    expect(searchScale(Float32Array.from(values), SEARCH)).toBe(42);
  });
});

describe('extremeOf', () => {
  it.each([
    ['the sign', [1, -3, 2], -3],
    ['the first of several', [1, 3, -3, 3], 3],
    ['zero of zeros', [-0, 0], 0],
    ['zero of nothing', [], 0],
  ])('gives %s', (_, values, expected) => {
    expect(extremeOf(Float32Array.from(values))).toBe(expected);
  });
});
