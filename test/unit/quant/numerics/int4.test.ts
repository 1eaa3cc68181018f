import { expect, it } from 'vitest';
import { int4RowBytes, packInt4, readInt4, unpackInt4 } from '../../../../src/quant/numerics/int4.js';

it('packs every pair of codes, low nibble first', () => {
  for (let low = -8; low < 8; low++) {
    for (let high = -8; high < 8; high++) {
      const [byte] = packInt4(Int8Array.of(low, high), 1, 2);
      expect(byte).toBe((low & 15) | ((high & 15) << 4));
      expect([readInt4(byte as number, 0), readInt4(byte as number, 1)]).toEqual([low, high]);
    }
  }
});

it('starts every row on a byte and pads with 0', () => {
  const codes = Int8Array.of(1, -2, 3, -4, 5, -6);
  expect(int4RowBytes(3)).toBe(2);
  expect([...packInt4(codes, 2, 3)]).toEqual([0xe1, 0x03, 0x5c, 0x0a]);
  expect(unpackInt4(packInt4(codes, 2, 3), 2, 3)).toEqual(codes);
});
