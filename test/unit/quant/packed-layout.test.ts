import { describe, expect, it } from 'vitest';
import {
  memberSlices,
  numPanels,
  packedWeightBytes,
  packedWeightShape,
  packPanels,
  paddedK,
  scaleCount,
  scaleShape,
  unpackPanels,
} from '../../../src/quant/packed-layout.js';
import type { NativeFormat } from '../../../src/quant/scheme.js';

const INT8: NativeFormat = { format: 'int8', groupN: 1, groupK: 0 };
const INT8_G64: NativeFormat = { format: 'int8', groupN: 1, groupK: 64 };
const INT4: NativeFormat = { format: 'int4', groupN: 1, groupK: 0 };
const E4M3: NativeFormat = { format: 'e4m3', groupN: 128, groupK: 128 };

describe('shapes', () => {
  it('pads k to 64 and rows to panels of 16, member by member', () => {
    expect([1, 64, 65].map(paddedK)).toEqual([64, 64, 128]);
    expect([1, 16, 17].map(numPanels)).toEqual([1, 1, 2]);
    expect(packedWeightShape([17, 1], 65, 'int8')).toEqual([3, 64, 32]);
    expect(packedWeightShape([17, 1], 65, 'e4m3')).toEqual([3, 64, 32]);
    expect(packedWeightShape([17, 1], 65, 'int4')).toEqual([3, 32, 64]);
    expect(packedWeightBytes([17, 1], 65, 'int8')).toBe(3 * 64 * 32);
    expect(packedWeightBytes([17, 1], 65, 'int4')).toBe((3 * 32 * 64) / 2);
  });

  it('has a scale a row and group, or a tile', () => {
    expect(scaleShape([17, 1], 65, INT8)).toEqual([3, 1, 16]);
    expect(scaleShape([17, 1], 65, INT8_G64)).toEqual([3, 2, 16]);
    expect(scaleShape([129, 1], 300, E4M3)).toEqual([3, 3]);
    expect(scaleCount([17, 1], 65, INT8_G64)).toBe(96);
  });

  it('lays members one after the other', () => {
    expect(memberSlices([17, 1], 65, INT8_G64)).toEqual([
      { weightOffset: 0, weightBytes: 4096, scaleOffset: 0, scaleCount: 64 },
      { weightOffset: 4096, weightBytes: 2048, scaleOffset: 64, scaleCount: 32 },
    ]);
    expect(memberSlices([129, 1], 300, E4M3)).toEqual([
      { weightOffset: 0, weightBytes: 9 * 16 * 320, scaleOffset: 0, scaleCount: 6 },
      { weightOffset: 9 * 16 * 320, weightBytes: 16 * 320, scaleOffset: 6, scaleCount: 3 },
    ]);
  });
});

describe('panels', () => {
  const n = 18;
  const k = 5;

  it('interleave pairs of k over 16 rows of 8-bit codes', () => {
    const codes = Uint8Array.from({ length: n * k }, (_, at) => at + 1);
    const packed = packPanels({ n, k, native: INT8 }, { codes, scales: new Float32Array(n).fill(2) });
    const panel = 64 * 16;
    expect(packed.codes[0]).toBe(1);
    expect(packed.codes[1]).toBe(2);
    expect(packed.codes[2]).toBe(1 + k);
    expect(packed.codes[(1 * 16 + 3) * 2 + 1]).toBe(3 * k + 3 + 1);
    expect(packed.codes[(2 * 16 + 0) * 2 + 1]).toBe(0);
    expect(packed.codes[panel + (2 * 16 + 1) * 2]).toBe(17 * k + 4 + 1);
    expect(packed.codes.filter((code) => code !== 0)).toHaveLength(n * k);
  });

  it('put the next pair of k into the high nibble of int4', () => {
    const native = INT4;
    // Rows of codes 1..5, two a byte.
    const codes = Uint8Array.from({ length: n * 3 }, (_, at) => [0x21, 0x43, 0x05][at % 3] as number);
    const packed = packPanels({ n, k, native }, { codes, scales: new Float32Array(n).fill(2) });
    for (const row of [0, 15]) {
      expect([...packed.codes.subarray(row * 2, row * 2 + 2)]).toEqual([0x31, 0x42]);
      expect([...packed.codes.subarray((16 + row) * 2, (16 + row) * 2 + 2)]).toEqual([0x05, 0]);
    }
    expect(packed.codes).toHaveLength(2 * 64 * 8);
    expect(unpackPanels({ n, k, native }, packed).codes).toEqual(codes);
  });

  it('put 16 rows of scales side by side and pad with 1', () => {
    const scales = Float32Array.from({ length: n * 2 }, (_, at) => at + 10);
    const native: NativeFormat = { format: 'int8', groupN: 1, groupK: 64 };
    const matrix = { n, k: 70, native };
    const packed = packPanels(matrix, { codes: new Uint8Array(n * 70), scales });
    expect(packed.scales).toHaveLength(2 * 2 * 16);
    expect(packed.scales[3]).toBe(16);
    expect(packed.scales[16 + 3]).toBe(17);
    expect(packed.scales[32 + 1]).toBe(44);
    expect([...packed.scales.subarray(34, 48)]).toEqual(new Array(14).fill(1));
    expect(unpackPanels(matrix, packed).scales).toEqual(scales);
  });

  it('keep tiles in order, as a copy', () => {
    const scales = Float32Array.of(1, 2, 3, 4, 5, 6);
    const matrix = { n: 129, k: 300, native: E4M3 };
    const packed = packPanels(matrix, { codes: new Uint8Array(129 * 300), scales });
    expect(packed.scales).toEqual(scales);
    expect(packed.scales).not.toBe(scales);
    expect(unpackPanels(matrix, packed).scales).toEqual(scales);
  });
});
