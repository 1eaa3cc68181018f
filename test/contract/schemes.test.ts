import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { encodeBf16 } from '../../src/quant/numerics/bf16.js';
import { encodeFp16 } from '../../src/quant/numerics/fp16.js';
import { widenFloats } from '../../src/quant/numerics/floats.js';
import type { FloatType } from '../../src/quant/numerics/floats.js';
import { memberSlices, packPanels, unpackPanels } from '../../src/quant/packed-layout.js';
import { resolveScheme, SCHEMES, SCHEME_FAMILIES } from '../../src/quant/registry.js';
import type { QuantizedParts, QuantScheme, WeightTensor } from '../../src/quant/scheme.js';

/** float32 roundings of scale, quotient and product, as a share of the value. */
const FLOAT32_SLACK = 4 * 2 ** -24;
const SMALLEST_SUBNORMAL = 2 ** -149;
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

interface Matrix {
  readonly tensor: WeightTensor;
  readonly bytes: Uint8Array;
  /** As stored, widened. */
  readonly values: Float32Array;
}

function toBytes(values: ArrayLike<number>, dataType: FloatType): Uint8Array {
  const width = dataType === 'float32' ? 4 : 2;
  const view = new DataView(new ArrayBuffer(values.length * width));
  for (let i = 0; i < values.length; i++) {
    const x = values[i] as number;
    if (dataType === 'float32') view.setFloat32(4 * i, x, true);
    else view.setUint16(2 * i, dataType === 'bfloat16' ? encodeBf16(x) : encodeFp16(x), true);
  }
  return new Uint8Array(view.buffer);
}

function matrix(
  n: number,
  k: number,
  fill: (at: number) => number,
  dataType: FloatType = 'bfloat16',
): Matrix {
  const bytes = toBytes(
    Array.from({ length: n * k }, (_, at) => fill(at)),
    dataType,
  );
  return {
    tensor: { name: 'the.weight', dataType, shape: [n, k] },
    bytes,
    values: widenFloats(bytes, dataType),
  };
}

/** Deterministic values in (-1, 1), no two tiles alike. */
function noise(at: number): number {
  return Math.sin(at * 12.9898) * (1 + (at % 7)) * 0.1;
}

function quantize(scheme: QuantScheme, { tensor, bytes }: Matrix): QuantizedParts {
  return scheme.quantize(tensor, { firstRow: 0, bytes });
}

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
  };
}

/** Rows and columns of the scheme's tiles. */
function tileOf(scheme: QuantScheme, k: number): readonly [number, number] {
  const { groupN = 1, groupK = 0 } = scheme.native ?? {};
  return [groupN, groupK === 0 ? k : groupK];
}

function scaleAt(scheme: QuantScheme, { scales }: QuantizedParts, k: number, at: number): number {
  const [rows, columns] = tileOf(scheme, k);
  const across = Math.ceil(k / columns);
  return scales[Math.floor(Math.floor(at / k) / rows) * across + Math.floor((at % k) / columns)] ?? 0;
}

/** True when every restored value is as near as the scheme promises. */
function findError(scheme: QuantScheme, input: Matrix): string | undefined {
  const parts = quantize(scheme, input);
  const k = input.tensor.shape[1] as number;
  const { relative, ofScale } = scheme.weight.maxError;
  const restored = scheme.dequantize(input.tensor, parts);
  for (const [at, value] of input.values.entries()) {
    const scale = scaleAt(scheme, parts, k, at);
    const amax = Math.abs(value) + scale * 448;
    const bound = Math.max(relative * Math.abs(value), ofScale * scale) + FLOAT32_SLACK * amax;
    const found = restored[at] as number;
    if (!(Math.abs(found - value) <= bound)) return `${value} became ${found} at ${at}, scale ${scale}`;
  }
  return undefined;
}

const QUANTIZING = SCHEMES.filter(({ native }) => native !== null);

describe('the registry', () => {
  it('gives every name and alias to one scheme, whatever the case', () => {
    const names = SCHEMES.flatMap(({ name, aliases }) => [name, ...aliases]);
    expect(new Set(names).size).toBe(names.length);
    for (const scheme of SCHEMES) {
      for (const name of [scheme.name, ...scheme.aliases]) {
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
      const input = matrix(n, k, noise, dataType);
      const parts = quantize(scheme, input);
      const stored = scheme.native === null ? parts : packPanels({ n, k, native: scheme.native }, parts);
      expect(scheme.bytes(input.tensor)).toBe(stored.codes.byteLength + stored.scales.byteLength);
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
        const input = matrix(n, k, (at) => noise(at + n) * 2 ** (exponent + (at % 9)), dataType);
        expect(findError(scheme, input)).toBeUndefined();
      },
    );
    fc.assert(property, { numRuns: 100, interruptAfterTimeLimit: 5000 });
  });

  it('gives the same from chunks of any size', () => {
    const n = 300;
    const input = matrix(n, 130, noise);
    const whole = quantize(scheme, input);
    const align = scheme.rowAlign;
    for (const ends of [
      [align, n],
      [2 * align, n],
      Array.from({ length: Math.floor(n / align) }, (_, i) => (i + 1) * align).concat(
        n % align === 0 ? [] : [n],
      ),
    ]) {
      const chunked = quantizeChunks(scheme, input, ends);
      expect(chunked.codes).toEqual(whole.codes);
      expect(chunked.scales).toEqual(whole.scales);
    }
    expect(quantize(scheme, input)).toEqual(whole);
  });

  it('leaves its input alone', () => {
    const input = matrix(3, 5, noise);
    const before = input.bytes.slice();
    quantize(scheme, input).codes.fill(0xff);
    expect(input.bytes).toEqual(before);
  });
});

describe.each(QUANTIZING)('$name quantizes', (scheme) => {
  it('zeros to zeros with scale 1', () => {
    const input = matrix(130, 140, (at) => (at % 140 < 128 ? 0 : noise(at)));
    const parts = quantize(scheme, input);
    const restored = scheme.dequantize(input.tensor, parts);
    for (const [at, value] of input.values.entries()) if (value === 0) expect(restored[at]).toBe(0);
    const zero = matrix(130, 140, () => 0);
    const zeroParts = quantize(scheme, zero);
    expect(zeroParts.scales.every((scale) => scale === 1)).toBe(true);
    expect(zeroParts.codes.every((code) => code === 0)).toBe(true);
  });

  it.each([0.375, -0.375])('a single element %s to its largest code', (value) => {
    const input = matrix(1, 1, () => value);
    const parts = quantize(scheme, input);
    expect(parts.scales).toHaveLength(1);
    const restored = scheme.dequantize(input.tensor, parts)[0] as number;
    expect(Math.abs(restored - value)).toBeLessThanOrEqual(FLOAT32_SLACK * Math.abs(value));
  });

  it('K = 1 to as many scales as there are tile rows', () => {
    const input = matrix(131, 1, (at) => at - 65);
    const { scales } = quantize(scheme, input);
    expect(scales).toHaveLength(Math.ceil(131 / scheme.rowAlign));
    expect(findError(scheme, input)).toBeUndefined();
  });

  it('a ragged last group by its own maximum', () => {
    const k = 128 + 3;
    const input = matrix(1, k, (at) => (at < 128 ? 100 : 0.5));
    const parts = quantize(scheme, input);
    const expected = (scheme.native?.groupK ?? 0) === 0 ? 100 : 0.5;
    const largest = scaleAt(scheme, parts, k, k - 1) / scaleAt(scheme, parts, k, 0);
    expect(largest).toBeCloseTo(expected / 100, 6);
  });

  it('subnormal numbers without flushing them, and to 0 where the scale underflows', () => {
    const input = matrix(2, 8, (at) => (at + 1) * 2 ** -133);
    const parts = quantize(scheme, input);
    expect(parts.scales.every((scale) => scale > 0 && scale < 2 ** -126)).toBe(true);
    expect(scheme.dequantize(input.tensor, parts).some((value) => value !== 0)).toBe(true);
    const tiny = matrix(1, 4, () => SMALLEST_SUBNORMAL, 'float32');
    const tinyParts = quantize(scheme, tiny);
    expect([...tinyParts.scales]).toEqual(tinyParts.scales.length === 1 ? [1] : [1, 1]);
    expect([...scheme.dequantize(tiny.tensor, tinyParts)]).toEqual([0, 0, 0, 0]);
  });

  it('negative zero to zero, signed where the format has signed zeros', () => {
    const input = matrix(1, 4, () => -0);
    const restored = scheme.dequantize(input.tensor, quantize(scheme, input));
    const signed = scheme.weight.element === 'float8e4m3fn';
    for (const value of restored) expect(Object.is(value, -0)).toBe(signed);
  });

  it('ties to the even code', () => {
    const integers = scheme.native?.format !== 'e4m3';
    // Scale 1: 7 and 127 are the largest codes of their formats, 448 that of e4m3.
    const top = { int4: 7, int8: 127, e4m3: 448, int2: 3, nf4: 1, e2m1: 6 }[scheme.native?.format ?? 'int4'];
    const ties = integers ? [0.5, 1.5, 2.5, -0.5, -1.5, -2.5] : [1.0625, 1.1875, -1.0625, -1.1875, 17, 19];
    const even = integers ? [0, 2, 2, 0, -2, -2] : [1, 1.25, -1, -1.25, 16, 20];
    const input = matrix(1, 7, (at) => [top, ...ties][at] as number, 'float32');
    const parts = quantize(scheme, input);
    expect(parts.scales[0]).toBe(1);
    const restored = [...scheme.dequantize(input.tensor, parts)].slice(1);
    expect(restored.map((value) => value + 0)).toEqual(even);
  });

  it.each([NaN, Infinity, -Infinity])('no %s: the error names tensor, row and column', (bad) => {
    const rows = scheme.rowAlign + 2;
    const input = matrix(rows, 5, (at) => (at === (rows - 1) * 5 + 3 ? bad : noise(at)));
    const last = scheme.rowAlign;
    const rowBytes = input.bytes.length / rows;
    const expected = {
      code: 'non_finite_weight',
      param: 'the.weight',
      message: expect.stringContaining(`the.weight`) as string,
    };
    const message = `row ${rows - 1}, column 3`;
    expect(() => quantize(scheme, input)).toThrow(expect.objectContaining(expected));
    expect(() => quantize(scheme, input)).toThrow(message);
    const chunk = { firstRow: last, bytes: input.bytes.subarray(last * rowBytes) };
    expect(() => scheme.quantize(input.tensor, chunk)).toThrow(message);
  });

  it('no chunk that cuts a tile', () => {
    const input = matrix(300, 3, noise);
    const rowBytes = input.bytes.length / 300;
    const chunk = (from: number, to: number) => ({
      firstRow: from,
      bytes: input.bytes.subarray(from * rowBytes, to * rowBytes),
    });
    const wrong = scheme.rowAlign === 1 ? [] : [chunk(1, 300), chunk(0, scheme.rowAlign + 1)];
    for (const part of [...wrong, { firstRow: 300, bytes: input.bytes.subarray(0, rowBytes) }, chunk(0, 0)]) {
      expect(() => scheme.quantize(input.tensor, part)).toThrow(
        expect.objectContaining({ code: 'internal' }),
      );
    }
    expect(() => scheme.quantize({ ...input.tensor, dataType: 'int8' }, chunk(0, 300))).toThrow('int8');
  });

  it.each(SHAPES)('to panels and back, [%i, %i]', (n, k) => {
    const { native } = scheme;
    if (native === null) throw new Error('not a native scheme');
    const parts = quantize(scheme, matrix(n, k, noise));
    const packed = packPanels({ n, k, native }, parts);
    const unpacked = unpackPanels({ n, k, native }, packed);
    expect(unpacked.codes).toEqual(parts.codes);
    expect(unpacked.scales).toEqual(parts.scales);
    const [slice] = memberSlices([n], k, native);
    expect(slice).toEqual({
      weightOffset: 0,
      weightBytes: packed.codes.length,
      scaleOffset: 0,
      scaleCount: packed.scales.length,
    });
  });
});
