import { describe, expect, it } from 'vitest';
import { decodeBf16, encodeBf16 } from '../../../src/quant/numerics/bf16.js';
import { resolveScheme } from '../../../src/quant/registry.js';
import type { QuantScheme } from '../../../src/quant/scheme.js';
import { makeMatrix, type Matrix } from '../../helpers/native-weights.js';

/** About normal: a sum of uniform numbers of a small generator. */
function normal(seed: number): () => number {
  let state = seed;
  const uniform = (): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
  return () => Array.from({ length: 6 }, uniform).reduce((sum, value) => sum + value, -3);
}

/** Squared error of each group of columns. */
function groupErrors(scheme: QuantScheme, { tensor, bytes, values }: Matrix, group: number): number[] {
  const restored = scheme.dequantize(tensor, scheme.quantize(tensor, { firstRow: 0, bytes }));
  const errors = new Array<number>(values.length / group).fill(0);
  for (const [at, value] of values.entries()) {
    const index = Math.floor(at / group);
    errors[index] = (errors[index] ?? 0) + (value - (restored[at] ?? NaN)) ** 2;
  }
  return errors;
}

const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);

describe.each([32, 64, 128])('wint4:g%i:mse', (group) => {
  const draw = normal(group);
  const matrix = makeMatrix([40, 256], draw);
  const plain = groupErrors(resolveScheme(`wint4:g${group}`), matrix, group);
  const searched = groupErrors(resolveScheme(`wint4:g${group}:mse`), matrix, group);

  it('loses no more in any group, and less over all', () => {
    for (const [index, error] of searched.entries()) {
      expect(error).toBeLessThanOrEqual((plain[index] ?? 0) * (1 + 1e-6));
    }
    expect(sum(searched)).toBeLessThan(sum(plain) * 0.95);
  });
});

describe('wint4:g32:mse', () => {
  const scheme = resolveScheme('wint4:g32:mse');
  const quantizeRow = (values: readonly number[]): { scale: number; codes: Uint8Array } => {
    const { tensor, bytes } = makeMatrix([1, values.length], (at) => values[at] ?? NaN);
    const { scales, codes } = scheme.quantize(tensor, { firstRow: 0, bytes });
    return { scale: scales[0] ?? NaN, codes };
  };

  it.each([1, -1])('gives the code -8 to the largest magnitude of the sign %i', (sign) => {
    // Steps of a half fit all but the sign's other end.
    const { scale, codes } = quantizeRow(
      [-4, 3.5, -3.5, 3, 1.5, 0.5, -0.5, 2.5].map((value) => sign * value),
    );
    expect(scale).toBeCloseTo(sign * 0.5, 6);
    expect([...codes]).toEqual([0x78, 0x69, 0x13, 0x5f]);
  });

  it('keeps both ends of groups that have two values', () => {
    const { tensor, bytes, values } = makeMatrix([1, 64], (at) => (at % 3 === 0 ? -0.375 : 0.375));
    const restored = scheme.dequantize(tensor, scheme.quantize(tensor, { firstRow: 0, bytes }));
    for (const [at, value] of restored.entries()) expect(value).toBeCloseTo(values[at] as number, 6);
  });
});

describe('wint2', () => {
  const scheme = resolveScheme('wint2');
  const matrix = makeMatrix([20, 256], normal(2));

  it('loses less than the largest magnitude as scale would', () => {
    const unclipped = Float32Array.from(matrix.values, (value, at) => {
      const group = matrix.values.subarray(Math.floor(at / 64) * 64, Math.floor(at / 64) * 64 + 64);
      const scale = Math.max(...group.map(Math.abs)) / 3;
      const level = Math.max(-3, Math.min(3, 2 * Math.floor(value / scale / 2) + 1));
      return (value - level * scale) ** 2;
    });
    const found = sum(groupErrors(scheme, matrix, 64));
    expect(found).toBeLessThan(sum([...unclipped]) * 0.75);
  });

  it('restores numbers that are exact in bfloat16, three times the scale included', () => {
    const { tensor, bytes } = matrix;
    const parts = scheme.quantize(tensor, { firstRow: 0, bytes });
    for (const value of scheme.dequantize(tensor, parts)) expect(decodeBf16(encodeBf16(value))).toBe(value);
    const scales = new Uint16Array(parts.blockScales?.slice().buffer ?? new ArrayBuffer());
    expect(scales).toHaveLength(20 * 4);
    // 8 significant bits, the last two 0.
    for (const scale of scales) expect(scale & 3).toBe(0);
  });

  it('keeps a group of zeros beside others', () => {
    const half = makeMatrix([2, 128], (at) => (at % 128 < 64 ? 0 : 3));
    const restored = scheme.dequantize(
      half.tensor,
      scheme.quantize(half.tensor, { firstRow: 0, bytes: half.bytes }),
    );
    expect(restored).toEqual(half.values);
  });

  it('does not choose a scale whose largest level is beyond float32', () => {
    const largest = (2 - 2 ** -23) * 2 ** 127;
    const huge = makeMatrix([1, 64], (at) => (at % 2 === 0 ? largest : -largest), 'float32');
    const restored = scheme.dequantize(
      huge.tensor,
      scheme.quantize(huge.tensor, { firstRow: 0, bytes: huge.bytes }),
    );
    for (const [at, value] of restored.entries()) {
      expect(Math.abs(value / (huge.values[at] as number) - 1)).toBeLessThan(0.05);
    }
  });
});
