import { decodeBf16 } from './bf16.js';
import { decodeFp16 } from './fp16.js';

/** Element types a weight may be stored in and quantized from. */
export const FLOAT_TYPES = ['float32', 'float16', 'bfloat16'] as const;
export type FloatType = (typeof FLOAT_TYPES)[number];

export function isFloatType(dataType: string): dataType is FloatType {
  return (FLOAT_TYPES as readonly string[]).includes(dataType);
}

export function floatBytes(dataType: FloatType): number {
  return dataType === 'float32' ? 4 : 2;
}

/** Little-endian floats of any alignment, widened to float32; exact. */
export function widenFloats(bytes: Uint8Array, dataType: FloatType): Float32Array {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const count = bytes.byteLength / floatBytes(dataType);
  const values = new Float32Array(count);
  if (dataType === 'float32') {
    for (let i = 0; i < count; i++) values[i] = view.getFloat32(4 * i, true);
    return values;
  }
  const decode = dataType === 'bfloat16' ? decodeBf16 : decodeFp16;
  for (let i = 0; i < count; i++) values[i] = decode(view.getUint16(2 * i, true));
  return values;
}
