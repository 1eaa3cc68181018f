import type { QuantizedPart } from '../../graph/ir.js';
import { activationRuleOf } from '../../quant/activation.js';
import type { QuantScheme } from '../../quant/scheme.js';
import { unpackBlockScales, unpackE2m1, unpackInt4Words, unpackInt8Words } from './unpack.js';
import { unpackRows, unpackScales } from '../onnx/stock-weights.js';

type Json = Readonly<Record<string, unknown>>;

/** A matrix of the checkpoint. */
export interface Matrix {
  readonly n: number;
  readonly k: number;
}

/** A tensor that one part of a quantized layer becomes. */
interface StoredTensor {
  /** `weight_packed` of `model.layers.0.mlp.up_proj.weight_packed` */
  readonly suffix: string;
  readonly dtype: 'F8_E4M3' | 'F32' | 'I8' | 'I32' | 'U8';
  shape(matrix: Matrix): readonly number[];
  /** The bytes of one matrix in panels to those of the tensor. */
  convert(matrix: Matrix, panels: Uint8Array): Uint8Array;
}

/** How a scheme lies in a safetensors file, and what compressed-tensors calls it. */
export interface StoredLayout {
  /** `format` of a config group. */
  readonly format: 'pack-quantized' | 'int-quantized' | 'float-quantized' | 'nvfp4-pack-quantized';
  /** `weights` of a config group. */
  readonly weights: Json;
  /** `input_activations` of a config group. */
  readonly inputs: Json | null;
  readonly parts: Partial<Record<QuantizedPart, StoredTensor>>;
  /** There is a `weight_shape`, int64 [2]. */
  readonly hasShape: boolean;
  /** Columns that share a scale: other engines want them to divide k. 1: any k. */
  readonly divisor: number;
}

const TILE = 128;

const INPUTS: Readonly<Record<string, Json | null>> = {
  none: null,
  int8_token: { num_bits: 8, type: 'int', symmetric: true, strategy: 'token', dynamic: true },
  e4m3_token: { num_bits: 8, type: 'float', symmetric: true, strategy: 'token', dynamic: true },
  e4m3_group128: {
    num_bits: 8,
    type: 'float',
    symmetric: true,
    strategy: 'group',
    group_size: TILE,
    dynamic: true,
  },
};

/**
 * The layout of compressed-tensors for a scheme; https://github.com/vllm-project/compressed-tensors has the formats.
 * Scales are float32. Weights of int8 that stay alone (wint8) are packed like those of int4: engines take
 * int-quantized weights only together with int8 inputs.
 * @returns undefined for a scheme that has none
 */
export function layoutOf(scheme: QuantScheme): StoredLayout | undefined {
  const { native } = scheme;
  const inputs = INPUTS[activationRuleOf(scheme.activation)];
  if (native === null || inputs === undefined || native.asymmetric === true) return undefined;
  const { format, groupN, groupK } = native;
  const common = { inputs, hasShape: false, divisor: 1 };
  switch (format) {
    case 'int8':
    case 'int4':
      if (groupN !== 1) return undefined;
      return format === 'int8' && inputs !== null && groupK === 0
        ? { ...common, format: 'int-quantized', weights: weightsOf('int', 8, 'channel'), parts: BYTES }
        : packed(format === 'int8' ? 8 : 4, groupK, common);
    case 'e4m3':
      return { ...common, format: 'float-quantized', ...describeE4m3(groupN) };
    case 'e2m1':
      return groupN === 0 ? { ...common, ...NVFP4 } : undefined;
    case 'int2':
    case 'nf4':
      return undefined;
  }
}

function weightsOf(type: 'int' | 'float', bits: number, strategy: string): Json {
  return { num_bits: bits, type, symmetric: true, strategy, dynamic: false };
}

function packed(bits: 4 | 8, groupK: number, common: Pick<StoredLayout, 'inputs'>): StoredLayout {
  const groups = (k: number): number => (groupK === 0 ? 1 : Math.ceil(k / groupK));
  const strategy = groupK === 0 ? 'channel' : 'group';
  const unpackWords = bits === 4 ? unpackInt4Words : unpackInt8Words;
  return {
    ...common,
    format: 'pack-quantized',
    weights: { ...weightsOf('int', bits, strategy), ...(groupK === 0 ? {} : { group_size: groupK }) },
    parts: {
      weight: {
        suffix: 'weight_packed',
        dtype: 'I32',
        shape: ({ n, k }) => [n, Math.ceil((k * bits) / 32)],
        convert: unpackWords,
      },
      scales: {
        suffix: 'weight_scale',
        dtype: 'F32',
        shape: ({ n, k }) => [n, groups(k)],
        convert: ({ n, k }, panels) => unpackScales({ rows: [n], k }, groups(k), 1, panels),
      },
    },
    hasShape: true,
    divisor: Math.max(1, groupK),
  };
}

const ROW_SCALES: StoredTensor = {
  suffix: 'weight_scale',
  dtype: 'F32',
  shape: ({ n }) => [n, 1],
  convert: ({ n, k }, panels) => unpackScales({ rows: [n], k }, 1, 1, panels),
};

/** One code a byte, [n, k]. */
function codesOf(dtype: 'I8' | 'F8_E4M3'): StoredTensor {
  return {
    suffix: 'weight',
    dtype,
    shape: ({ n, k }) => [n, k],
    convert: ({ n, k }, panels) => unpackRows({ rows: [n], k }, panels),
  };
}

const BYTES: StoredLayout['parts'] = { weight: codesOf('I8'), scales: ROW_SCALES };

/** @param groupN rows that share a scale: 1, all (0), or tiles */
function describeE4m3(groupN: number): Pick<StoredLayout, 'weights' | 'parts'> {
  const weight = codesOf('F8_E4M3');
  const asStored = (_: Matrix, bytes: Uint8Array): Uint8Array => bytes;
  if (groupN === 1) {
    return { weights: weightsOf('float', 8, 'channel'), parts: { weight, scales: ROW_SCALES } };
  }
  if (groupN === 0) {
    const scales = { ...ROW_SCALES, shape: () => [1], convert: asStored };
    return { weights: weightsOf('float', 8, 'tensor'), parts: { weight, scales } };
  }
  return {
    weights: { ...weightsOf('float', 8, 'block'), block_structure: [TILE, TILE] },
    parts: {
      weight,
      scales: {
        ...ROW_SCALES,
        shape: ({ n, k }) => [Math.ceil(n / TILE), Math.ceil(k / TILE)],
        convert: asStored,
      },
    },
  };
}

const NVFP4_BLOCK = 16;

/** Codes of two columns a byte; the scale of the whole tensor is stored as what weights were multiplied with. */
const NVFP4: Pick<StoredLayout, 'format' | 'weights' | 'parts' | 'divisor'> = {
  format: 'nvfp4-pack-quantized',
  weights: { ...weightsOf('float', 4, 'tensor_group'), group_size: NVFP4_BLOCK },
  parts: {
    weight: {
      suffix: 'weight_packed',
      dtype: 'U8',
      shape: ({ n, k }) => [n, k / 2],
      convert: unpackE2m1,
    },
    scales: {
      suffix: 'weight_global_scale',
      dtype: 'F32',
      shape: () => [1],
      convert: (_, bytes) =>
        new Uint8Array(new Float32Array(bytes.slice().buffer).map((scale) => 1 / scale).buffer),
    },
    block_scales: {
      suffix: 'weight_scale',
      dtype: 'F8_E4M3',
      shape: ({ n, k }) => [n, k / NVFP4_BLOCK],
      convert: (matrix, panels) => unpackBlockScales(matrix, NVFP4_BLOCK, panels),
    },
  },
  divisor: NVFP4_BLOCK,
};
