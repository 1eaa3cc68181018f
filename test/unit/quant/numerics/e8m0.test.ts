import { describe, expect, it } from 'vitest';
import { decodeE8m0, encodeE8m0, floorLog2 } from '../../../../src/quant/numerics/e8m0.js';

const MIN_SUBNORMAL = 2 ** -149;

describe('e8m0', () => {
  it('is a power of two for every code but 255', () => {
    for (let code = 0; code < 255; code++) {
      expect(decodeE8m0(code)).toBe(2 ** (code - 127));
      expect(Math.fround(decodeE8m0(code))).toBe(decodeE8m0(code));
      expect(encodeE8m0(code - 127)).toBe(code);
    }
    expect(decodeE8m0(255)).toBeNaN();
  });

  it('limits exponents to what it has', () => {
    expect([-128, -500, 128, 500].map(encodeE8m0)).toEqual([0, 0, 254, 254]);
  });
});

describe('floorLog2', () => {
  it('is exact at powers of two and beside them, subnormal numbers included', () => {
    for (let exponent = -149; exponent < 128; exponent++) {
      const power = 2 ** exponent;
      expect(floorLog2(power)).toBe(exponent);
      const ulp = Math.max(MIN_SUBNORMAL, 2 ** (exponent - 24));
      if (exponent > -149) expect(floorLog2(power - ulp)).toBe(exponent - 1);
      if (exponent > -148) expect(floorLog2(power + 2 * ulp)).toBe(exponent);
    }
  });
});
