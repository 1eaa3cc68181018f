import { BugError } from '../errors.js';

import type { DataType } from './ir.js';

interface DataTypeRow {
  /** TensorProto.DataType of the ONNX specification. */
  readonly elementType: number;
  readonly bits: number;
}

const DATA_TYPES: Readonly<Record<DataType, DataTypeRow>> = {
  float32: { elementType: 1, bits: 32 },
  uint8: { elementType: 2, bits: 8 },
  int8: { elementType: 3, bits: 8 },
  int32: { elementType: 6, bits: 32 },
  int64: { elementType: 7, bits: 64 },
  bool: { elementType: 9, bits: 8 },
  float16: { elementType: 10, bits: 16 },
  float64: { elementType: 11, bits: 64 },
  bfloat16: { elementType: 16, bits: 16 },
  float8e4m3fn: { elementType: 17, bits: 8 },
  uint4: { elementType: 21, bits: 4 },
  int4: { elementType: 22, bits: 4 },
  float4e2m1: { elementType: 23, bits: 4 },
};

const NAMES_BY_ELEMENT_TYPE = new Map(
  (Object.keys(DATA_TYPES) as DataType[]).map((name) => [DATA_TYPES[name].elementType, name]),
);

export const DATA_TYPE_NAMES = Object.keys(DATA_TYPES) as readonly DataType[];

/** TensorProto.DataType number of a data type. */
export function elementTypeOf(dataType: DataType): number {
  return DATA_TYPES[dataType].elementType;
}

/** Data type of a TensorProto.DataType number, undefined when fdq does not handle it. */
export function dataTypeOf(elementType: number): DataType | undefined {
  return NAMES_BY_ELEMENT_TYPE.get(elementType);
}

export function bitsPerElement(dataType: DataType): number {
  return DATA_TYPES[dataType].bits;
}

/** Number of elements, or undefined when a size is not a natural number or the product is not a safe integer. */
export function countElements(shape: readonly number[]): number | undefined {
  let count = 1n;
  for (const size of shape) {
    if (!Number.isSafeInteger(size) || size < 0) return undefined;
    count *= BigInt(size);
  }
  return count <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(count) : undefined;
}

/** Stored bytes of a tensor, sub-byte elements packed; undefined when they cannot be counted exactly. */
export function findByteLength(dataType: DataType, shape: readonly number[]): number | undefined {
  const count = countElements(shape);
  if (count === undefined) return undefined;
  const bytes = (BigInt(count) * BigInt(bitsPerElement(dataType)) + 7n) / 8n;
  return bytes <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(bytes) : undefined;
}

/** `findByteLength` for shapes that were checked before. */
export function byteLengthOf(dataType: DataType, shape: readonly number[]): number {
  const bytes = findByteLength(dataType, shape);
  if (bytes === undefined)
    throw new BugError(`The size of a ${dataType} tensor [${shape.join(', ')}] is not a safe integer`);
  return bytes;
}
