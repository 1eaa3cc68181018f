import { describe, expect, it } from 'vitest';
import {
  dequantizeTiles,
  quantizeTiles,
  scaleToMaximum,
  tilesAcross,
} from '../../../../src/quant/numerics/tiles.js';
import { roundHalfToEven } from '../../../../src/quant/numerics/rounding.js';

const RULE = {
  rows: 2,
  columns: 2,
  findScale: scaleToMaximum(10),
  encode: (x: number) => roundHalfToEven(x) + 100,
};

describe('quantizeTiles', () => {
  it('gives each tile its own scale, smaller ones at the edges included', () => {
    const values = Float32Array.of(1, 2, 30, 4, -5, 6, 7, 8, 90);
    const { codes, scales } = quantizeTiles({ name: 'w', firstRow: 0, rows: 3, k: 3, values }, RULE);
    expect([...scales]).toEqual([0.5, 3, 0.8, 9].map(Math.fround));
    expect([...codes]).toEqual([102, 104, 110, 108, 90, 102, 109, 110, 110]);
    const restored = dequantizeTiles({ codes, scales }, 3, RULE, (code) => code - 100);
    expect([...restored]).toEqual([1, 2, 30, 4, -5, 6, 9 * Math.fround(0.8), 8, 90].map(Math.fround));
  });

  it('takes whole rows where a tile has no width', () => {
    const values = Float32Array.of(1, -10, 3, 20);
    const rule = { ...RULE, rows: 1, columns: 0 };
    const { codes, scales } = quantizeTiles({ name: 'w', firstRow: 0, rows: 2, k: 2, values }, rule);
    expect([...scales]).toEqual([1, 2]);
    expect([...codes]).toEqual([101, 90, 102, 110]);
    expect([...dequantizeTiles({ codes, scales }, 2, rule, (code) => code - 100)]).toEqual([1, -10, 4, 20]);
    expect([tilesAcross(5, 0), tilesAcross(5, 2), tilesAcross(4, 2)]).toEqual([1, 3, 2]);
  });

  it('takes whole columns where a tile has no height', () => {
    const values = Float32Array.of(1, -10, 3, 20);
    const rule = { ...RULE, rows: 0, columns: 1 };
    const { codes, scales } = quantizeTiles({ name: 'w', firstRow: 0, rows: 2, k: 2, values }, rule);
    expect([...scales]).toEqual([3, 20].map((amax) => Math.fround(amax / 10)));
    expect([...codes]).toEqual([103, 95, 110, 110]);
    expect([...dequantizeTiles({ codes, scales }, 2, rule, (code) => code - 100)]).toEqual(
      [3 * Math.fround(0.3), -10, 3, 20].map(Math.fround),
    );
  });

  it.each([NaN, Infinity, -Infinity])('names the place of %s in the tensor, first in row order', (bad) => {
    const values = Float32Array.of(0, 0, 0, 0, 0, bad, bad, 0, 0);
    expect(() => quantizeTiles({ name: 'a.weight', firstRow: 4, rows: 3, k: 3, values }, RULE)).toThrow(
      `Expected every element of a.weight to be finite but received ${bad} at row 5, column 2.`,
    );
  });
});
