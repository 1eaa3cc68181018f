import { bitsPerElement, dataTypeOf, findByteLength } from './data-types.js';
import { locateExternalData } from './external-data.js';
import { invalidModel, unsupportedModel } from './onnx-problems.js';

import type { DataType, Initializer } from './ir.js';
import type { onnx } from 'onnx-proto';

/** TensorProto.DataLocation */
const DEFAULT_LOCATION = 0;
const EXTERNAL_LOCATION = 1;

/** protobufjs hands out 64-bit integers as numbers or as Long objects, whose text is exact. */
export function toSafeInteger(value: unknown, what: string): number {
  const number = Number(String(value));
  if (!Number.isSafeInteger(number)) {
    throw invalidModel(`Expected ${what} to be at most 2^53 - 1 but it is ${String(value)}`);
  }
  return number;
}

export function readDataType(elementType: number, what: string): DataType {
  const dataType = dataTypeOf(elementType);
  if (dataType === undefined)
    throw unsupportedModel(`${what} is of ONNX element type ${elementType}, which fdq does not handle`);
  return dataType;
}

/**
 * One dense tensor, its bytes proven to exist. `dir` is the folder of the model.
 * @throws UserError `invalid_checkpoint` or `unsupported_model`.
 */
export function readInitializer(tensor: onnx.ITensorProto, name: string, dir: string): Initializer {
  const what = `Tensor "${name}"`;
  const dataType = readDataType(tensor.dataType ?? 0, what);
  const shape = (tensor.dims ?? []).map((size) => toSafeInteger(size, `a size of tensor "${name}"`));
  const byteLength = findByteLength(dataType, shape);
  if (byteLength === undefined) throw invalidModel(`${what} has the impossible shape [${shape.join(', ')}]`);
  if (tensor.segment) throw unsupportedModel(`${what} is stored in segments`);
  const location = tensor.dataLocation as number | null | undefined;
  const entries = tensor.externalData ?? [];
  if (location === EXTERNAL_LOCATION) {
    const data = locateExternalData(entries, { name, byteLength, dir });
    return { name, dataType, shape, data: { kind: 'external', ...data } };
  }
  if ((location ?? DEFAULT_LOCATION) !== DEFAULT_LOCATION || entries.length > 0) {
    throw invalidModel(`${what} has external data entries but is not marked as external`);
  }
  const bytes = readBytes(tensor, dataType);
  if (bytes.byteLength !== byteLength)
    throw invalidModel(`${what} needs ${byteLength} bytes but has ${bytes.byteLength}`);
  return { name, dataType, shape, data: { kind: 'inline', bytes } };
}

/** Little-endian bytes, from `raw_data` or from the typed field the specification gives each type. */
function readBytes(tensor: onnx.ITensorProto, dataType: DataType): Uint8Array {
  // A view would keep the whole file's buffer alive.
  if (tensor.rawData && tensor.rawData.byteLength > 0) return new Uint8Array(tensor.rawData);
  switch (dataType) {
    case 'float32':
      return pack(tensor.floatData ?? [], 4, (view, at, value) => view.setFloat32(at, value, true));
    case 'float64':
      return pack(tensor.doubleData ?? [], 8, (view, at, value) => view.setFloat64(at, value, true));
    case 'int64':
      return pack<unknown>(tensor.int64Data ?? [], 8, (view, at, value) =>
        view.setBigInt64(at, BigInt(String(value)), true),
      );
    default:
      return packInt32(tensor.int32Data ?? [], Math.max(1, bitsPerElement(dataType) / 8));
  }
}

/** int32_data holds one element each (two of the 4-bit types) in its low bytes. */
function packInt32(values: readonly number[], bytesEach: number): Uint8Array {
  return pack(values, bytesEach, (view, at, value) => {
    if (bytesEach === 4) view.setInt32(at, value, true);
    else if (bytesEach === 2) view.setUint16(at, value & 0xffff, true);
    else view.setUint8(at, value & 0xff);
  });
}

function pack<T>(
  values: readonly T[],
  bytesEach: number,
  set: (view: DataView, at: number, value: T) => void,
): Uint8Array {
  const bytes = new Uint8Array(values.length * bytesEach);
  const view = new DataView(bytes.buffer);
  values.forEach((value, index) => {
    set(view, index * bytesEach, value);
  });
  return bytes;
}
