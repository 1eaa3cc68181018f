import { describe, expect, it } from 'vitest';
import { divideFloat32, roundHalfToEven, safeScale } from '../../../../src/quant/numerics/rounding.js';

const SMALLEST = 2 ** -149;
const LARGEST = (2 - 2 ** -23) * 2 ** 127;

describe('roundHalfToEven', () => {
  it('rounds every tie and its neighbours in -600..600', () => {
    for (let integer = -600; integer < 600; integer++) {
      const even = integer % 2 === 0 ? integer : integer + 1;
      expect(roundHalfToEven(integer) === integer).toBe(true);
      expect(roundHalfToEven(integer + 0.5) === even).toBe(true);
      expect(roundHalfToEven(integer + 0.5 - 2 ** -43) === integer).toBe(true);
      expect(roundHalfToEven(integer + 0.5 + 2 ** -43) === integer + 1).toBe(true);
    }
  });

  it('keeps what has no fraction', () => {
    for (const x of [
      2 ** 51 + 1,
      2 ** 52 - 1,
      2 ** 52,
      2 ** 53,
      -(2 ** 52),
      1e300,
      Infinity,
      -Infinity,
      NaN,
    ]) {
      expect(roundHalfToEven(x)).toBe(x);
    }
    expect(roundHalfToEven(2 ** 51 + 0.5)).toBe(2 ** 51);
    expect(roundHalfToEven(-(2 ** 51) - 1.5)).toBe(-(2 ** 51) - 2);
  });

  it('gives +0 for what rounds to zero', () => {
    for (const x of [0, 0.5, -0.25, -0.5]) expect(roundHalfToEven(x)).toBe(0);
  });
});

describe('safeScale', () => {
  it('divides in float32', () => {
    expect(safeScale(1, 127)).toBe(Math.fround(1 / 127));
    expect(safeScale(LARGEST, 7)).toBe(Math.fround(LARGEST / 7));
  });

  it('is 1 for zero and where the quotient underflows', () => {
    expect(safeScale(0, 127)).toBe(1);
    expect(safeScale(SMALLEST, 127)).toBe(1);
    expect(safeScale(63 * SMALLEST, 127)).toBe(1);
  });

  it('keeps subnormal scales', () => {
    expect(safeScale(64 * SMALLEST, 127)).toBe(SMALLEST);
    expect(safeScale(127 * SMALLEST, 127)).toBe(SMALLEST);
  });
});

it('divides without multiplying by a reciprocal', () => {
  const scale = Math.fround(3 / 127);
  expect(divideFloat32(3, scale)).toBe(Math.fround(3 / scale));
  expect(divideFloat32(1, 3)).toBe(Math.fround(1 / 3));
});
