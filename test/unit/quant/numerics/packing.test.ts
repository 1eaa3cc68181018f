import { describe, expect, it } from 'vitest';
import {
  packCodes,
  packedRowBytes,
  signExtend,
  unpackCodes,
} from '../../../../src/quant/numerics/packing.js';

describe('packCodes', () => {
  it('packs every pair of 4-bit codes, low nibble first, and drops what is above', () => {
    for (let low = -8; low < 8; low++) {
      for (let high = -8; high < 8; high++) {
        const [byte = 0] = packCodes(Uint8Array.of(low, high), 1, 2, 4);
        expect(byte).toBe((low & 15) | ((high & 15) << 4));
        expect([...unpackCodes(Uint8Array.of(byte), 1, 2, 4)].map((code) => signExtend(code, 4))).toEqual([
          low,
          high,
        ]);
      }
    }
  });

  it('packs four 2-bit codes, lowest bits first', () => {
    expect([...packCodes(Uint8Array.of(0, 1, 2, 3), 1, 4, 2)]).toEqual([0b11_10_01_00]);
    expect([...unpackCodes(Uint8Array.of(0b11_10_01_00), 1, 4, 2)]).toEqual([0, 1, 2, 3]);
  });

  it('starts every row on a byte and pads with 0', () => {
    const nibbles = Uint8Array.of(1, 14, 3, 12, 5, 10);
    expect([...packCodes(nibbles, 2, 3, 4)]).toEqual([0xe1, 0x03, 0x5c, 0x0a]);
    expect(unpackCodes(packCodes(nibbles, 2, 3, 4), 2, 3, 4)).toEqual(nibbles);
    const pairs = Uint8Array.of(3, 2, 1, 3, 2, 0, 1, 2, 3, 1);
    expect([...packCodes(pairs, 2, 5, 2)]).toEqual([0b11_01_10_11, 2, 0b11_10_01_00, 1]);
    expect(unpackCodes(packCodes(pairs, 2, 5, 2), 2, 5, 2)).toEqual(pairs);
  });

  it('copies bytes', () => {
    const codes = Uint8Array.of(0, 127, 128, 255);
    const packed = packCodes(codes, 2, 2, 8);
    expect(packed).toEqual(codes);
    expect(packed).not.toBe(codes);
    expect(unpackCodes(packed, 2, 2, 8)).toEqual(codes);
    expect([...codes].map((code) => signExtend(code, 8))).toEqual([0, 127, -128, -1]);
  });

  it('counts the bytes of a row', () => {
    expect([1, 4, 5].map((k) => packedRowBytes(k, 2))).toEqual([1, 1, 2]);
    expect([1, 2, 3].map((k) => packedRowBytes(k, 4))).toEqual([1, 1, 2]);
    expect(packedRowBytes(3, 8)).toBe(3);
  });
});
