/**
 * Writers of every stored format fdq loads, from the definition of each: random codes and scales, packed as the format
 * packs them, and the float32 weights that they stand for.
 */
import { encodeBf16 } from '../../src/quant/numerics/bf16.js';
import { encodeFp16 } from '../../src/quant/numerics/fp16.js';
import type { TensorSpec } from './write-safetensors.js';

export interface StoredSample {
  /** By suffix of the module's name. */
  readonly tensors: Readonly<Record<string, TensorSpec>>;
  /** [n, k] */
  readonly weights: Float32Array;
}

export interface StoredCase {
  readonly name: string;
  /** `quantization_config`, or the contents of `file`. */
  readonly config: Readonly<Record<string, unknown>>;
  readonly file?: string;
  /** What fdq calls the scheme. */
  readonly scheme: string;
  readonly activation: string;
  /** n and k are multiples of these. */
  readonly unit: readonly [n: number, k: number];
  write(n: number, k: number, random: Random): StoredSample;
}

/** A number in [0, 1). */
export type Random = () => number;

/** Mulberry32: the same numbers for the same seed. */
export function createRandom(seed: number): Random {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

export type FloatDtype = 'F32' | 'F16' | 'BF16';

/** Positive and exact in float16, bfloat16 and float32. */
export function randomScales(count: number, random: Random): Float32Array {
  return Float32Array.from({ length: count }, () => (64 + Math.floor(random() * 64)) / 2 ** 13);
}

export function integers(count: number, [low, high]: readonly [number, number], random: Random): Int32Array {
  return Int32Array.from({ length: count }, () => low + Math.floor(random() * (high - low + 1)));
}

export function floats(values: Float32Array, dtype: FloatDtype, shape: readonly number[]): TensorSpec {
  if (dtype === 'F32') return { dtype, shape, data: bytesOf(values) };
  const encode = dtype === 'F16' ? encodeFp16 : encodeBf16;
  return { dtype, shape, data: bytesOf(Uint16Array.from(values, (value) => encode(value))) };
}

function bytesOf(values: ArrayBufferView): Uint8Array {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength).slice();
}

function words(values: Uint32Array, shape: readonly number[]): TensorSpec {
  return { dtype: 'I32', shape, data: bytesOf(values) };
}

/** Places where several codes share a word. */
interface Packing {
  readonly count: number;
  readonly bits: number;
  /** Word and position in it of element (row, column). */
  readonly place: (row: number, column: number) => readonly [word: number, position: number];
}

function pack(
  rows: number,
  columns: number,
  packing: Packing,
  codeAt: (row: number, column: number) => number,
): Uint32Array {
  const packed = new Uint32Array(packing.count);
  const mask = 2 ** packing.bits - 1;
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const [word, position] = packing.place(row, column);
      packed[word] = (packed[word]! | ((codeAt(row, column) & mask) << (position * packing.bits))) >>> 0;
    }
  }
  return packed;
}

interface Grouped {
  readonly n: number;
  readonly k: number;
  readonly groups: number;
  readonly codes: Int32Array;
  readonly zeros: Int32Array;
  /** [n, groups] */
  readonly scales: Float32Array;
  readonly groupOf: Int32Array;
}

/** Codes 0 .. 2^bits - 1 with zero points, and which group each column is of. */
function drawGrouped(
  n: number,
  k: number,
  options: {
    readonly bits: number;
    readonly group: number;
    readonly symmetric: boolean;
    readonly shuffled?: boolean;
  },
  random: Random,
): Grouped {
  const { bits, group, symmetric, shuffled = false } = options;
  const size = group === -1 ? k : group;
  const groups = Math.ceil(k / size);
  const top = 2 ** bits - 1;
  const groupOf = Int32Array.from({ length: k }, (_, column) => Math.floor(column / size));
  if (shuffled) {
    for (let i = k - 1; i > 0; i--) {
      const j = Math.floor(random() * (i + 1));
      [groupOf[i], groupOf[j]] = [groupOf[j]!, groupOf[i]!];
    }
  }
  return {
    n,
    k,
    groups,
    groupOf,
    codes: integers(n * k, [0, top], random),
    zeros: symmetric
      ? new Int32Array(n * groups).fill(2 ** (bits - 1))
      : integers(n * groups, [0, top], random),
    scales: randomScales(n * groups, random),
  };
}

function groupedWeights({ n, k, groups, codes, zeros, scales, groupOf }: Grouped): Float32Array {
  return Float32Array.from({ length: n * k }, (_, at) => {
    const place = Math.floor(at / k) * groups + groupOf[at % k]!;
    return (codes[at]! - zeros[place]!) * scales[place]!;
  });
}

/** [rows, columns] to [columns, rows]. */
function transpose(values: Float32Array, rows: number, columns: number): Float32Array {
  return Float32Array.from(
    { length: values.length },
    (_, at) => values[(at % rows) * columns + Math.floor(at / rows)]!,
  );
}

interface GptqOptions {
  readonly bits: 4 | 8;
  readonly group: number;
  readonly symmetric: boolean;
  readonly version: 1 | 2;
  readonly actOrder?: boolean;
  readonly dtype?: FloatDtype;
}

export function gptqCase(name: string, scheme: string, options: GptqOptions): StoredCase {
  const { bits, group, symmetric, version, actOrder = false, dtype = 'F16' } = options;
  const perWord = 32 / bits;
  return {
    name,
    scheme,
    activation: 'none',
    unit: [perWord, perWord],
    config: {
      quant_method: 'gptq',
      bits,
      group_size: group,
      sym: symmetric,
      desc_act: actOrder,
      checkpoint_format: version === 1 ? 'gptq' : 'gptq_v2',
    },
    write(n, k, random) {
      const drawn = drawGrouped(n, k, { bits, group, symmetric, shuffled: actOrder }, random);
      const { groups, codes, zeros, scales, groupOf } = drawn;
      const rows: Packing = {
        count: (k / perWord) * n,
        bits,
        place: (row, column) => [Math.floor(column / perWord) * n + row, column % perWord],
      };
      const zeroPlaces: Packing = {
        count: (groups * n) / perWord,
        bits,
        place: (row, column) => [(column * n) / perWord + Math.floor(row / perWord), row % perWord],
      };
      const stored = pack(n, groups, zeroPlaces, (row, at) => zeros[row * groups + at]!);
      // Version 1 is version 2 minus one in every place, subtracted from whole words: a 0 borrows from the next place.
      if (version === 1)
        stored.forEach((word, at) => (stored[at] = word - (bits === 4 ? 0x11111111 : 0x01010101)));
      return {
        weights: groupedWeights(drawn),
        tensors: {
          qweight: words(
            pack(n, k, rows, (row, column) => codes[row * k + column]!),
            [k / perWord, n],
          ),
          qzeros: words(stored, [groups, n / perWord]),
          scales: floats(transpose(scales, n, groups), dtype, [groups, n]),
          g_idx: { dtype: 'I32', shape: [k], data: bytesOf(groupOf) },
        },
      };
    },
  };
}

/** Row of each nibble of an AWQ word. */
const AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7];

export function awqCase(name: string, scheme: string, group: number): StoredCase {
  return {
    name,
    scheme,
    activation: 'none',
    unit: [8, 1],
    config: { quant_method: 'awq', bits: 4, group_size: group, version: 'gemm', zero_point: true },
    write(n, k, random) {
      const drawn = drawGrouped(n, k, { bits: 4, group, symmetric: false }, random);
      const { groups, codes, zeros, scales } = drawn;
      const interleaved = (columns: number): Packing => ({
        count: (columns * n) / 8,
        bits: 4,
        place: (row, column) => [(column * n) / 8 + Math.floor(row / 8), AWQ_ORDER.indexOf(row % 8)],
      });
      return {
        weights: groupedWeights(drawn),
        tensors: {
          qweight: words(
            pack(n, k, interleaved(k), (row, column) => codes[row * k + column]!),
            [k, n / 8],
          ),
          qzeros: words(
            pack(n, groups, interleaved(groups), (row, at) => zeros[row * groups + at]!),
            [groups, n / 8],
          ),
          scales: floats(transpose(scales, n, groups), 'F16', [groups, n]),
        },
      };
    },
  };
}

interface PackedOptions {
  readonly bits: 4 | 8;
  readonly group: number;
  readonly symmetric: boolean;
  readonly actOrder?: boolean;
  readonly dtype?: FloatDtype;
  readonly input?: Readonly<Record<string, unknown>>;
}

export function compressed(
  format: string,
  weights: Readonly<Record<string, unknown>>,
  input: Readonly<Record<string, unknown>> | null = null,
): StoredCase['config'] {
  return {
    quant_method: 'compressed-tensors',
    format,
    quantization_status: 'compressed',
    config_groups: {
      group_0: { targets: ['Linear'], weights, input_activations: input, output_activations: null },
    },
    ignore: ['lm_head'],
  };
}

export function packedCase(
  name: string,
  scheme: string,
  options: PackedOptions & { readonly activation?: string },
): StoredCase {
  const {
    bits,
    group,
    symmetric,
    actOrder = false,
    dtype = 'BF16',
    input = null,
    activation = 'none',
  } = options;
  const perWord = 32 / bits;
  const strategy = group === -1 ? { strategy: 'channel' } : { strategy: 'group', group_size: group };
  const order = actOrder ? { actorder: 'group' } : {};
  return {
    name,
    scheme,
    activation,
    unit: [1, 1],
    config: compressed(
      'pack-quantized',
      { num_bits: bits, type: 'int', symmetric, ...strategy, ...order },
      input,
    ),
    write(n, k, random) {
      const drawn = drawGrouped(n, k, { bits, group, symmetric, shuffled: actOrder }, random);
      const { groups, codes, zeros, scales, groupOf } = drawn;
      const across = Math.ceil(k / perWord);
      const down = Math.ceil(n / perWord);
      const rows: Packing = {
        count: n * across,
        bits,
        place: (row, column) => [row * across + Math.floor(column / perWord), column % perWord],
      };
      const zeroPlaces: Packing = {
        count: down * groups,
        bits,
        place: (row, column) => [Math.floor(row / perWord) * groups + column, row % perWord],
      };
      return {
        weights: groupedWeights(drawn),
        tensors: {
          weight_packed: words(
            pack(n, k, rows, (row, column) => codes[row * k + column]!),
            [n, across],
          ),
          weight_scale: floats(scales, dtype, [n, groups]),
          weight_shape: { dtype: 'I64', shape: [2], data: bytesOf(BigInt64Array.of(BigInt(n), BigInt(k))) },
          ...(symmetric
            ? {}
            : {
                weight_zero_point: words(
                  pack(n, groups, zeroPlaces, (row, at) => zeros[row * groups + at]!),
                  [down, groups],
                ),
              }),
          ...(actOrder ? { weight_g_idx: { dtype: 'I32', shape: [k], data: bytesOf(groupOf) } } : {}),
        },
      };
    },
  };
}
