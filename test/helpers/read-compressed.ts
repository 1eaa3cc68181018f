import { readFileSync } from 'node:fs';
import path from 'node:path';

/** A tensor as the file says it is. */
export interface RawTensor {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

/** Every tensor of the given safetensors files, read by the description of the format alone. */
export function readRawTensors(dir: string, files: readonly string[]): ReadonlyMap<string, RawTensor> {
  const tensors = new Map<string, RawTensor>();
  for (const file of files) {
    const bytes = readFileSync(path.join(dir, file));
    const start = 8 + Number(bytes.readBigUInt64LE());
    const header = JSON.parse(bytes.subarray(8, start).toString()) as Record<
      string,
      { dtype: string; shape: number[]; data_offsets: [number, number] }
    >;
    let end = 0;
    for (const [name, { dtype, shape, data_offsets: range }] of Object.entries(header)) {
      if (name === '__metadata__') continue;
      if (range[0] !== end) throw new Error(`there is a gap before ${name}`);
      end = range[1];
      tensors.set(name, { dtype, shape, bytes: bytes.subarray(start + range[0], start + range[1]) });
    }
    if (start + end !== bytes.length) throw new Error(`${file} is longer than its tensors`);
  }
  return tensors;
}

interface WeightArgs {
  readonly num_bits: number;
  readonly type: 'int' | 'float';
  readonly strategy: string;
  readonly group_size?: number;
}

type ReadTensor = (suffix: string) => RawTensor;

/**
 * The float32 values of a module, by the definition of its compressed-tensors format: (code - offset) * scale, scales
 * by tensor, channel, group of columns or tile.
 */
export function dequantizeCompressed(format: string, args: WeightArgs, read: ReadTensor): Float32Array {
  if (format === 'nvfp4-pack-quantized') return dequantizeNvfp4(read);
  const codes = format === 'pack-quantized' ? unpackWords(read, args.num_bits) : byteCodes(read('weight'));
  const { n, k, value } = codes;
  const scale = read('weight_scale');
  const scales = floatsOf(scale);
  const at = (row: number, column: number): number => {
    switch (args.strategy) {
      case 'tensor':
        return 0;
      case 'channel':
        return row;
      case 'group':
        return row * (scale.shape[1] ?? 0) + Math.floor(column / (args.group_size ?? 0));
      default:
        return Math.floor(row / 128) * (scale.shape[1] ?? 0) + Math.floor(column / 128);
    }
  };
  return Float32Array.from({ length: n * k }, (_, i) => {
    const row = Math.floor(i / k);
    return value(row, i % k) * (scales[at(row, i % k)] ?? NaN);
  });
}

/** DeepSeek's FP8: tiles of 128 x 128 with a multiplier each. */
export function dequantizeTiles(read: ReadTensor): Float32Array {
  const scale = read('weight_scale_inv');
  return dequantizeCompressed(
    'float-quantized',
    { num_bits: 8, type: 'float', strategy: 'block' },
    (suffix) => (suffix === 'weight_scale' ? scale : read(suffix)),
  );
}

interface Codes {
  readonly n: number;
  readonly k: number;
  readonly value: (row: number, column: number) => number;
}

function unpackWords(read: ReadTensor, bits: number): Codes {
  const shape = read('weight_shape').bytes;
  const view = new DataView(shape.buffer, shape.byteOffset, shape.byteLength);
  const [n, k] = [Number(view.getBigInt64(0, true)), Number(view.getBigInt64(8, true))];
  const packed = read('weight_packed');
  const words = new DataView(packed.bytes.buffer, packed.bytes.byteOffset, packed.bytes.byteLength);
  const perWord = 32 / bits;
  return {
    n,
    k,
    value: (row, column) => {
      const word = words.getUint32(4 * (row * (packed.shape[1] ?? 0) + Math.floor(column / perWord)), true);
      return ((word >>> (bits * (column % perWord))) & (2 ** bits - 1)) - 2 ** (bits - 1);
    },
  };
}

function byteCodes({ dtype, shape, bytes }: RawTensor): Codes {
  const [n = 0, k = 0] = shape;
  const decode = dtype === 'I8' ? (code: number) => (code << 24) >> 24 : e4m3;
  return { n, k, value: (row, column) => decode(bytes[row * k + column] ?? NaN) };
}

function dequantizeNvfp4(read: ReadTensor): Float32Array {
  const { shape, bytes } = read('weight_packed');
  const [n = 0, half = 0] = shape;
  const blocks = read('weight_scale').bytes;
  const [global = NaN] = floatsOf(read('weight_global_scale'));
  const levels = [0, 0.5, 1, 1.5, 2, 3, 4, 6];
  return Float32Array.from({ length: 2 * n * half }, (_, i) => {
    const code = ((bytes[i >> 1] ?? NaN) >> (4 * (i & 1))) & 15;
    const value = (levels[code & 7] ?? NaN) * (code & 8 ? -1 : 1);
    return (value * e4m3(blocks[Math.floor(i / 16)] ?? NaN)) / global;
  });
}

function e4m3(code: number): number {
  const sign = code & 0x80 ? -1 : 1;
  const exponent = (code >> 3) & 15;
  const fraction = code & 7;
  if (exponent === 15 && fraction === 7) return NaN;
  return sign * (exponent === 0 ? fraction * 2 ** -9 : (8 + fraction) * 2 ** (exponent - 10));
}

function floatsOf({ dtype, bytes }: RawTensor): Float32Array {
  if (dtype !== 'F32') throw new Error(`scales are ${dtype}`);
  return new Float32Array(Uint8Array.from(bytes).buffer);
}
