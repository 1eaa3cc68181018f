import { describe, expect, it } from 'vitest';
import type { FloatType } from '../../src/quant/numerics/floats.js';
import { memberSlices, packPanels, unpackPanels } from '../../src/quant/packed-layout.js';
import { resolveScheme, SCHEMES, SCHEME_FAMILIES } from '../../src/quant/registry.js';
import type { QuantizedParts, QuantScheme } from '../../src/quant/scheme.js';
import { findPartDifference, makeMatrix, type Matrix } from '../helpers/native-weights.js';
import { fc } from '../helpers/properties.js';
import { findError, noise, quantize, QUANTIZING } from '../helpers/scheme-cases.js';

const SHAPES = [
  [1, 1],
  [1, 129],
  [5, 1],
  [16, 64],
  [17, 65],
  [33, 127],
  [127, 40],
  [128, 128],
  [129, 257],
] as const;

/** Quantizes in chunks that end at the given rows. */
function quantizeChunks(
  scheme: QuantScheme,
  { tensor, bytes }: Matrix,
  ends: readonly number[],
): QuantizedParts {
  const rowBytes = bytes.length / (tensor.shape[0] as number);
  const parts = ends.map((end, index) => {
    const firstRow = ends[index - 1] ?? 0;
    return scheme.quantize(tensor, { firstRow, bytes: bytes.subarray(firstRow * rowBytes, end * rowBytes) });
  });
  return {
    codes: Uint8Array.from(parts.flatMap(({ codes }) => [...codes])),
    scales: Float32Array.from(parts.flatMap(({ scales }) => [...scales])),
    blockScales: Uint8Array.from(parts.flatMap(({ blockScales }) => [...(blockScales ?? [])])),
  };
}

describe('the registry', () => {
  it('gives every name and alias to one scheme, whatever the case', () => {
    const names = SCHEMES.flatMap(({ name, aliases }) => [name, ...aliases]);
    expect(new Set(names).size).toBe(names.length);
    for (const scheme of SCHEMES) {
      for (const name of [scheme.name, ...scheme.aliases]) {
        expect(name).toBe(name.toLowerCase());
        expect(resolveScheme(name)).toBe(scheme);
        expect(resolveScheme(` ${name.toUpperCase()} `)).toBe(scheme);
      }
    }
  });

  it('names variants after their family and freezes them', () => {
    for (const { name, variants } of SCHEME_FAMILIES) {
      expect(variants[0].name).toBe(name);
      for (const variant of variants.slice(1)) expect(variant.name).toMatch(new RegExp(`^${name}:`));
      for (const variant of variants) expect(Object.isFrozen(variant)).toBe(true);
    }
  });
});

describe.each(SCHEMES)('$name', (scheme) => {
  it.each(SHAPES)('counts the bytes of [%i, %i] exactly', (n, k) => {
    for (const dataType of ['float32', 'float16', 'bfloat16'] as const) {
      const input = makeMatrix([n, k], noise, dataType);
      const parts = quantize(scheme, input);
      const stored = scheme.native === null ? parts : packPanels({ n, k, native: scheme.native }, parts);
      const { codes, scales, blockScales } = stored;
      expect(scheme.bytes(input.tensor)).toBe(
        codes.byteLength + scales.byteLength + (blockScales?.byteLength ?? 0),
      );
    }
  });

  it('accepts float matrices and says why it does not accept others', () => {
    expect(scheme.accepts({ name: 'w', dataType: 'float16', shape: [1, 1] })).toBe(true);
    expect(scheme.accepts({ name: 'w', dataType: 'int8', shape: [4, 4] })).toContain('int8');
    expect(scheme.accepts({ name: 'w', dataType: 'float32', shape: [4] })).toContain('[4]');
    expect(scheme.accepts({ name: 'w', dataType: 'float32', shape: [4, 0] })).toContain('[4, 0]');
  });

  it('restores any matrix within its bound', () => {
    const property = fc.property(
      fc.integer({ min: 1, max: 40 }),
      fc.integer({ min: 1, max: 200 }),
      fc.integer({ min: -60, max: 60 }),
      fc.constantFrom<FloatType>('float32', 'bfloat16'),
      (n, k, exponent, dataType) => {
        const input = makeMatrix([n, k], (at) => noise(at + n) * 2 ** (exponent + (at % 9)), dataType);
        expect(findError(scheme, input)).toBeUndefined();
      },
    );
    fc.assert(property, { numRuns: 50, interruptAfterTimeLimit: 2000 });
  });

  it('gives the same from chunks of any size', () => {
    const n = 300;
    const input = makeMatrix([n, 130], noise);
    const whole = quantize(scheme, input);
    const align = scheme.rowAlign === Infinity ? n : scheme.rowAlign;
    const ends = Array.from({ length: Math.floor(n / align) }, (_, i) => (i + 1) * align);
    for (const cuts of [[align], [2 * align], ends]) {
      const rows = [...cuts.filter((end) => end < n), n];
      expect(findPartDifference(quantizeChunks(scheme, input, rows), whole)).toBeUndefined();
    }
    expect(findPartDifference(quantize(scheme, input), whole)).toBeUndefined();
  });

  it('leaves its input alone', () => {
    const input = makeMatrix([3, 5], noise);
    const before = input.bytes.slice();
    quantize(scheme, input).codes.fill(0xff);
    expect(input.bytes).toEqual(before);
  });
});

describe.each(QUANTIZING)('$name quantizes', (scheme) => {
  it.each([NaN, Infinity, -Infinity])('no %s: the error names tensor, row and column', (bad) => {
    const align = scheme.rowAlign === Infinity ? 0 : scheme.rowAlign;
    const rows = align + 2;
    const input = makeMatrix([rows, 5], (at) => (at === (rows - 1) * 5 + 3 ? bad : noise(at)));
    const rowBytes = input.bytes.length / rows;
    const expected = {
      code: 'non_finite_weight',
      param: 'the.weight',
      message: expect.stringContaining(`the.weight`) as string,
    };
    const message = `row ${rows - 1}, column 3`;
    expect(() => quantize(scheme, input)).toThrow(expect.objectContaining(expected));
    expect(() => quantize(scheme, input)).toThrow(message);
    const chunk = { firstRow: align, bytes: input.bytes.subarray(align * rowBytes) };
    expect(() => scheme.quantize(input.tensor, chunk)).toThrow(message);
  });

  it('no chunk that cuts a tile', () => {
    const input = makeMatrix([300, 3], noise);
    const rowBytes = input.bytes.length / 300;
    const chunk = (from: number, to: number): { firstRow: number; bytes: Uint8Array } => ({
      firstRow: from,
      bytes: input.bytes.subarray(from * rowBytes, to * rowBytes),
    });
    const wrong = scheme.rowAlign === 1 ? [] : [chunk(1, 300), chunk(0, 129)];
    for (const part of [...wrong, { firstRow: 300, bytes: input.bytes.subarray(0, rowBytes) }, chunk(0, 0)]) {
      expect(() => scheme.quantize(input.tensor, part)).toThrow(
        expect.objectContaining({ code: 'internal' }),
      );
    }
    expect(() => scheme.quantize({ ...input.tensor, dataType: 'int8' }, chunk(0, 300))).toThrow('int8');
  });

  it.each(SHAPES)('to panels and back, [%i, %i]', (n, k) => {
    const { native } = scheme;
    const parts = quantize(scheme, makeMatrix([n, k], noise));
    const packed = packPanels({ n, k, native }, parts);
    expect(findPartDifference(unpackPanels({ n, k, native }, packed), parts)).toBeUndefined();
    const [slice] = memberSlices([n], k, native);
    expect(slice).toEqual({
      weightOffset: 0,
      weightBytes: packed.codes.length,
      scaleOffset: 0,
      scaleCount: packed.scales.length,
      blockScaleOffset: 0,
      blockScaleBytes: packed.blockScales?.length ?? 0,
      zeroPointOffset: 0,
      zeroPointCount: 0,
    });
  });
});
