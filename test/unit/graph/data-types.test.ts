import onnxProto from 'onnx-proto';
import { describe, expect, it } from 'vitest';

import {
  DATA_TYPE_NAMES,
  bitsPerElement,
  byteLengthOf,
  countElements,
  dataTypeOf,
  elementTypeOf,
  findByteLength,
} from '../../../src/graph/data-types.js';

describe('data types', () => {
  it('have the numbers of the ONNX specification, as far as the protobuf package knows them', () => {
    const { DataType } = onnxProto.onnx.TensorProto;
    const known = { float32: 'FLOAT', float64: 'DOUBLE' } as Partial<Record<string, string>>;
    const types = DataType as unknown as Record<string, number>;
    const checked = DATA_TYPE_NAMES.filter(
      (name) => types[known[name] ?? name.toUpperCase()] === elementTypeOf(name),
    );
    expect(checked).toEqual(DATA_TYPE_NAMES.filter((name) => elementTypeOf(name) <= 16));
    expect(checked).toHaveLength(9);
  });

  it('have the numbers onnx.proto3 gives the types newer than that package', () => {
    const newer = { float8e4m3fn: 17, uint4: 21, int4: 22, float4e2m1: 23 } as const;
    for (const [name, number] of Object.entries(newer))
      expect(elementTypeOf(name as keyof typeof newer)).toBe(number);
  });

  it('are found by number', () => {
    for (const name of DATA_TYPE_NAMES) expect(dataTypeOf(elementTypeOf(name))).toBe(name);
    expect(dataTypeOf(8)).toBeUndefined();
  });

  it('count bytes, packing what is smaller than a byte', () => {
    expect(byteLengthOf('float32', [2, 3])).toBe(24);
    expect(byteLengthOf('int4', [3, 3])).toBe(5);
    expect(byteLengthOf('float64', [])).toBe(8);
    expect(byteLengthOf('bool', [0, 5])).toBe(0);
    expect(bitsPerElement('float4e2m1')).toBe(4);
  });

  it('give up on sizes that cannot be counted exactly', () => {
    expect(countElements([2 ** 30, 2 ** 30])).toBeUndefined();
    expect(countElements([-1])).toBeUndefined();
    expect(countElements([0.5])).toBeUndefined();
    expect(countElements([2 ** 53])).toBeUndefined();
    expect(findByteLength('float64', [2 ** 52])).toBeUndefined();
    expect(findByteLength('float64', [-1])).toBeUndefined();
    expect(() => byteLengthOf('float64', [2 ** 52])).toThrow(/not a safe integer/);
  });
});
