import { describe, expect, it } from 'vitest';
import {
  blockScaleShape,
  canonicalColumns,
  memberSlices,
  numPanels,
  packedBytes,
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

const NVFP4: NativeFormat = {
  format: 'e2m1',
  groupN: 0,
  groupK: 0,
  block: { columns: 16, type: 'e4m3' },
};
const WINT2: NativeFormat = {
  format: 'int2',
  groupN: -1,
  groupK: 0,
  block: { columns: 64, type: 'bfloat16' },
};
const NO_BLOCKS = { blockScaleOffset: 0, blockScaleBytes: 0 };
const NO_ZEROS = { zeroPointOffset: 0, zeroPointCount: 0 };
const NOTHING_ELSE = { ...NO_BLOCKS, ...NO_ZEROS };

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

  it('counts bytes where ONNX has no type for the codes', () => {
    expect(packedWeightShape([17, 1], 65, 'nf4')).toEqual([3, 32, 32]);
    expect(packedWeightShape([17, 1], 65, 'e2m1')).toEqual([3, 32, 32]);
    expect(packedWeightShape([17, 1], 65, 'int2')).toEqual([3, 16, 32]);
    expect(packedWeightBytes([17, 1], 65, 'nf4')).toBe(3 * 32 * 32);
    expect(packedWeightBytes([17, 1], 65, 'int2')).toBe(3 * 16 * 32);
  });

  it('has one scale a tensor, or none', () => {
    expect(scaleShape([17, 1], 65, NVFP4)).toEqual([2]);
    expect(scaleShape([17, 1], 65, WINT2)).toEqual([0]);
    expect(scaleCount([17, 1], 65, WINT2)).toBe(0);
  });

  it('has block scales of panels', () => {
    expect(blockScaleShape([17, 1], 65, NVFP4)).toEqual([3, 5, 16]);
    expect(blockScaleShape([17, 1], 65, WINT2)).toEqual([3, 2, 16]);
    expect(blockScaleShape([17, 1], 65, INT8)).toEqual([0]);
  });

  it('pads canonical codes of e2m1 to whole blocks', () => {
    expect([1, 16, 17].map((k) => canonicalColumns(k, NVFP4))).toEqual([16, 16, 32]);
    expect(canonicalColumns(17, WINT2)).toBe(17);
    expect(canonicalColumns(17, INT4)).toBe(17);
  });

  it('adds up all parts', () => {
    expect(packedBytes([17, 1], 65, INT8)).toBe(3 * 64 * 32 + 3 * 16 * 4);
    expect(packedBytes([17, 1], 65, NVFP4)).toBe(3 * 32 * 32 + 2 * 4 + 3 * 5 * 16);
    expect(packedBytes([17, 1], 65, WINT2)).toBe(3 * 16 * 32 + 3 * 2 * 16 * 2);
    expect(packedBytes([17, 1], 65, { ...INT4, asymmetric: true })).toBe(3 * 32 * 32 + 3 * 16 * (4 + 1));
  });

  it('has a scale a row and group, or a tile', () => {
    expect(scaleShape([17, 1], 65, INT8)).toEqual([3, 1, 16]);
    expect(scaleShape([17, 1], 65, INT8_G64)).toEqual([3, 2, 16]);
    expect(scaleShape([129, 1], 300, E4M3)).toEqual([3, 3]);
    expect(scaleCount([17, 1], 65, INT8_G64)).toBe(96);
  });

  it('lays members one after the other', () => {
    expect(memberSlices([17, 1], 65, INT8_G64)).toEqual([
      { weightOffset: 0, weightBytes: 4096, scaleOffset: 0, scaleCount: 64, ...NOTHING_ELSE },
      { weightOffset: 4096, weightBytes: 2048, scaleOffset: 64, scaleCount: 32, ...NOTHING_ELSE },
    ]);
    expect(memberSlices([129, 1], 300, E4M3)).toEqual([
      { weightOffset: 0, weightBytes: 9 * 16 * 320, scaleOffset: 0, scaleCount: 6, ...NOTHING_ELSE },
      { weightOffset: 9 * 16 * 320, weightBytes: 16 * 320, scaleOffset: 6, scaleCount: 3, ...NOTHING_ELSE },
    ]);
    expect(memberSlices([17, 1], 65, NVFP4)).toEqual([
      {
        ...{ weightOffset: 0, weightBytes: 2048, scaleOffset: 0, scaleCount: 1 },
        ...{ blockScaleOffset: 0, blockScaleBytes: 160, ...NO_ZEROS },
      },
      {
        ...{ weightOffset: 2048, weightBytes: 1024, scaleOffset: 1, scaleCount: 1 },
        ...{ blockScaleOffset: 160, blockScaleBytes: 80, ...NO_ZEROS },
      },
    ]);
    const [, second] = memberSlices([17, 1], 65, WINT2);
    expect(second).toMatchObject({
      scaleOffset: 0,
      scaleCount: 0,
      blockScaleOffset: 128,
      blockScaleBytes: 64,
    });
    const [, asymmetric] = memberSlices([17, 1], 65, { ...INT4, groupK: 64, asymmetric: true });
    expect(asymmetric).toMatchObject({ scaleOffset: 64, zeroPointOffset: 64, zeroPointCount: 32 });
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

  it('put four pairs of k into a byte of int2', () => {
    const matrix = { n: 1, k: 9, native: WINT2 };
    // Columns 0..8 have the codes 0, 1, 2, 3, 3, 2, 1, 0, 2.
    const codes = Uint8Array.of(0b11_10_01_00, 0b00_01_10_11, 2);
    const blockScales = Uint8Array.of(0x80, 0x3f);
    const packed = packPanels(matrix, { codes, scales: new Float32Array(), blockScales });
    expect([...packed.codes.subarray(0, 2)]).toEqual([0b01_11_10_00, 0b00_10_11_01]);
    expect(packed.codes[32]).toBe(2);
    expect(packed.codes).toHaveLength(64 * 4);
    expect(unpackPanels(matrix, packed)).toEqual({ codes, scales: new Float32Array(), blockScales });
  });

  it('put 16 rows of block scales side by side and pad with 1', () => {
    const matrix = { n: 18, k: 17, native: NVFP4 };
    const blockScales = Uint8Array.from({ length: 18 * 2 }, (_, at) => at);
    const parts = { codes: new Uint8Array(18 * 16), scales: Float32Array.of(5), blockScales };
    const packed = packPanels(matrix, parts);
    expect(packed.scales).toEqual(parts.scales);
    expect(packed.blockScales?.[3]).toBe(6);
    expect(packed.blockScales?.[16 + 3]).toBe(7);
    expect(packed.blockScales?.[32 + 1]).toBe(34);
    expect([...(packed.blockScales?.subarray(34, 48) ?? [])]).toEqual(new Array(14).fill(0x38));
    expect(unpackPanels(matrix, packed)).toEqual(parts);
  });

  it('pad bfloat16 and e8m0 with 1 too', () => {
    const one = (native: NativeFormat, blockScales: Uint8Array): readonly number[] => {
      const parts = { codes: new Uint8Array(16), scales: new Float32Array(), blockScales };
      return [...(packPanels({ n: 1, k: 1, native }, parts).blockScales ?? [])];
    };
    expect(one(WINT2, Uint8Array.of(1, 2))).toEqual([
      1,
      2,
      ...new Array<number[]>(15).fill([0x80, 0x3f]).flat(),
    ]);
    const mxfp4 = { ...NVFP4, groupN: -1, block: { columns: 32, type: 'e8m0' } } as const;
    expect(one(mxfp4, Uint8Array.of(9))).toEqual([9, ...new Array<number>(15).fill(127)]);
  });

  it('lay zero points like the scales', () => {
    const native: NativeFormat = { ...INT4, groupK: 32, asymmetric: true };
    const matrix = { n: 17, k: 40, native };
    const zeroPoints = Int8Array.from({ length: 34 }, (_, at) => at - 17);
    const parts = {
      codes: new Uint8Array(17 * 20),
      scales: Float32Array.from({ length: 34 }, (_, at) => at + 1),
      zeroPoints,
    };
    const packed = packPanels(matrix, parts);
    expect(packed.zeroPoints?.[2]).toBe(-13);
    expect(packed.zeroPoints?.[16]).toBe(-16);
    expect([...(packed.zeroPoints?.subarray(33, 48) ?? [])]).toEqual(new Array(15).fill(0));
    expect(unpackPanels(matrix, packed)).toEqual(parts);
  });
});
