import { expect, it } from 'vitest';
import { decodeInt2, encodeInt2, INT2_MAX } from '../../../../src/quant/numerics/int2.js';

it('has the levels -3, -1, 1 and 3', () => {
  expect([0, 1, 2, 3].map(decodeInt2)).toEqual([-3, -1, 1, 3]);
  for (let code = 0; code < 4; code++) expect(encodeInt2(decodeInt2(code))).toBe(code);
  expect(decodeInt2(3)).toBe(INT2_MAX);
});

it('takes the nearest level, of two the higher', () => {
  const tiny = 2 ** -149;
  const levels = [-100, -2.1, -2, -0.1, -tiny, -0, 0, tiny, 1.9, 2, 2.1, 100].map(encodeInt2).map(decodeInt2);
  expect(levels).toEqual([-3, -3, -1, -1, -1, 1, 1, 1, 1, 3, 3, 3]);
});
