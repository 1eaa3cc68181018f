import { describe, expect, it } from 'vitest';
import { dequantizeBlocks, quantizeBlocks } from '../../../../src/quant/numerics/blocks.js';
import type { BlockRule } from '../../../../src/quant/numerics/blocks.js';
import { roundHalfToEven } from '../../../../src/quant/numerics/rounding.js';
import { absoluteMaximum } from '../../../../src/quant/numerics/tiles.js';

const ZERO = 100;
/** Scale code = amax of the block, in units of the tensor scale; scale = code / 10. */
const RULE: BlockRule = {
  columns: 2,
  findScale: (values, tensorScale) => Math.floor(absoluteMaximum(values) / tensorScale),
  decodeScale: (code) => code / 10,
  encode: (quotient) => roundHalfToEven(quotient) + ZERO,
};
const decode = (code: number): number => code - ZERO;

describe('quantizeBlocks', () => {
  const matrix = { name: 'w', firstRow: 0, rows: 2, k: 3, values: Float32Array.of(10, -5, 20, 0, 0, 30) };

  it('gives each block its own scale and pads the last one with codes of 0', () => {
    const result = quantizeBlocks(matrix, RULE);
    expect([...result.scaleCodes]).toEqual([10, 20, 0, 30]);
    expect([...result.codes]).toEqual([110, 95, 110, 100, 100, 100, 110, 100]);
    expect(result.tensorScale).toHaveLength(0);
    expect([...dequantizeBlocks(result, 3, RULE, decode)]).toEqual([10, -5, 20, 0, 0, 30]);
  });

  it('multiplies by the scale of the tensor where there is one', () => {
    const rule = { ...RULE, findTensorScale: (amax: number) => amax / 15 };
    const result = quantizeBlocks(matrix, rule);
    expect([...result.tensorScale]).toEqual([2]);
    expect([...result.scaleCodes]).toEqual([5, 10, 0, 15]);
    expect([...result.codes]).toEqual([110, 95, 110, 100, 100, 100, 110, 100]);
    expect([...dequantizeBlocks(result, 3, rule, decode)]).toEqual([10, -5, 20, 0, 0, 30]);
  });

  it('names the place of what is not finite', () => {
    const values = Float32Array.of(1, 2, 3, 4, NaN, 6);
    expect(() => quantizeBlocks({ ...matrix, firstRow: 8, values }, RULE)).toThrow('at row 9, column 1.');
  });
});
