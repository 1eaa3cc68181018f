import type { DataType, GraphNode, Initializer, WeightSource } from '../graph/ir.js';

/** A number format as data: what a code is, what its scale is, and what shares a scale. */
export interface QuantKey {
  /** 'stored': the checkpoint's own float type, nothing is quantized. */
  readonly element: 'int8' | 'int4' | 'int2' | 'nf4' | 'float4e2m1' | 'float8e4m3fn' | 'stored';
  readonly scaleType: 'float32' | 'bfloat16' | 'float8e4m3fn' | 'float8e8m0' | null;
  /** A float32 scale of the whole tensor on top. */
  readonly tensorScale?: boolean;
  /** Rows and columns that share a scale; -1: all of them. Activations have tokens as rows. */
  readonly group: readonly [rows: number, columns: number];
  /** Scales are computed for each input instead of once. */
  readonly dynamic: boolean;
  /** No zero point: w = q * scale. */
  readonly symmetric: boolean;
  /**
   * Largest distance of a restored value from the original w, for scales that are normal float32 numbers:
   * max(relative * |w|, ofScale * scale), where scale is the product of those that w has; and ofTensorScale times
   * the tensor's scale where that is more.
   */
  readonly maxError: {
    readonly relative: number;
    readonly ofScale: number;
    readonly ofTensorScale?: number;
  };
}

/** What a scheme must know of a weight matrix [n, k] to judge and size it. */
export type WeightTensor = Pick<WeightSource, 'name' | 'dataType' | 'shape'>;

/** Consecutive rows of a weight as they lie in the checkpoint, little-endian. */
export interface RowChunk {
  /** A multiple of the scheme's `rowAlign`; so is the number of rows, unless they reach the tensor's last one. */
  readonly firstRow: number;
  /** [rows, k] of the tensor's data type. */
  readonly bytes: Uint8Array;
  /** Of schemes with `findTensorScale`: a finite float32 above 0; absent: what it gives for these values. */
  readonly tensorScale?: number;
}

/** Canonical order: the parts of consecutive chunks, one after the other, are the parts of the tensor. */
export interface QuantizedParts {
  /**
   * int8, e4m3 and stored floats [n, k]; int4 and nf4 [n, ceil(k / 2)], low nibble first; e2m1 the same, padded
   * with zeros to whole blocks; int2 [n, ceil(k / 4)], lowest bits first.
   */
  readonly codes: Uint8Array;
  /** [n, groups]; for tiles [ceil(n / 128), ceil(k / 128)]; [1] for a whole tensor; empty where there is none. */
  readonly scales: Float32Array;
  /** Narrow scales [n, ceil(k / block)] of `NativeFormat.block.type`, little-endian; absent without blocks. */
  readonly blockScales?: Uint8Array;
  /** [n, groups], subtracted from int4 codes; absent where the format is symmetric. */
  readonly zeroPoints?: Int8Array;
}

/** What the native quantizer and kernels call the format; see custom-ops/include/fdq/formats.h. */
export interface NativeFormat {
  readonly format: WeightFormatName;
  /** Rows that share a float32 scale: 1, 128 (tiles), 0: all of a tensor, -1: there is no float32 scale. */
  readonly groupN: -1 | 0 | 1 | 128;
  /** Columns that do; 0: all. */
  readonly groupK: number;
  /** Narrow scales of so many columns of a row, which multiply the codes before the float32 scale does. */
  readonly block?: { readonly columns: 16 | 32 | 64; readonly type: BlockScaleType };
  /** int4 codes have a zero point for each scale. */
  readonly asymmetric?: true;
  /** Scales are those of the smallest squared error, found by trial, instead of the largest magnitude's. */
  readonly search?: true;
}

export type WeightFormatName = 'int8' | 'int4' | 'int2' | 'nf4' | 'e2m1' | 'e4m3';
export type BlockScaleType = 'e4m3' | 'e8m0' | 'bfloat16';

/** A linear layer y = x W^T + bias to be put into a graph. */
export interface EmitRequest {
  /** Name of the node. */
  readonly node: string;
  /** [tokens, k] float32 */
  readonly x: string;
  /** A float32 initializer [n], or '' for none. */
  readonly bias: string;
  readonly output: string;
  /** The float weight, [n, k]; its name is the one the emitted weight has. */
  readonly weight: Initializer;
  /** The checkpoint tensors it is made of, stacked along n. */
  readonly members: readonly WeightSource[];
  /** Those of the float layer that the members are a part of. */
  readonly fused: readonly WeightSource[];
  /** How x travels where the scheme does not round it itself. */
  readonly compute: ComputeType;
}

export type ComputeType = 'float32' | 'bfloat16';

export interface EmitResult {
  readonly node: GraphNode;
  /** Nodes that prepare its input, in order; absent: it reads x. */
  readonly before?: readonly GraphNode[];
  readonly initializers: readonly Initializer[];
}

/** A quantization scheme: one frozen object, all of it pure. */
export interface QuantScheme {
  /** Canonical, e.g. `wint4:g128`. */
  readonly name: string;
  /** Other names for the same thing; matched without regard to case. */
  readonly aliases: readonly string[];
  /** One line for help and tables. */
  readonly summary: string;
  readonly weight: QuantKey;
  /** null: activations are not quantized. */
  readonly activation: QuantKey | null;
  readonly requires: {
    readonly devices: readonly 'cpu'[];
    readonly op: { readonly domain: string; readonly opType: string; readonly version: number };
  };
  /** null: weights stay as stored. */
  readonly native: NativeFormat | null;
  /** Weights can be quantized while a model loads; otherwise `fdq convert` makes a folder first. */
  readonly online: boolean;
  /**
   * The scale of a tensor with this largest magnitude. Present where the tensors that are fused in the float model share
   * the scale that the largest magnitude of all of them has, so that engines may multiply by them as one.
   */
  readonly findTensorScale?: (amax: number) => number;
  /** Rows of a chunk must be a multiple of this; Infinity: a chunk is the whole tensor. */
  readonly rowAlign: number;
  /** true, or why the tensor stays as it is, as the end of a sentence that starts with the tensor. */
  accepts(tensor: WeightTensor): true | string;
  /** Exact bytes that weight and scales take in memory, padding included. */
  bytes(tensor: Pick<WeightTensor, 'dataType' | 'shape'>): number;
  /**
   * Codes and scales of some rows: the reference that every other implementation equals byte for byte.
   * @throws UserError `non_finite_weight` naming tensor, row and column.
   */
  quantize(tensor: WeightTensor, chunk: RowChunk): QuantizedParts;
  /** The float32 values [n, k] that the parts of a tensor stand for. */
  dequantize(tensor: WeightTensor, parts: QuantizedParts): Float32Array;
  /** The node that computes the layer and the initializers it reads. */
  emit(request: EmitRequest): EmitResult;
}

/** A scheme and the same scheme with other parameters: the first is what the bare name means. */
export interface SchemeFamily {
  readonly name: string;
  readonly variants: readonly [QuantScheme, ...QuantScheme[]];
}

/** Types a quantized initializer has in ONNX. */
export const NATIVE_DATA_TYPES: Readonly<Record<NativeFormat['format'], DataType>> = {
  int8: 'int8',
  int4: 'int4',
  int2: 'uint8',
  nf4: 'uint8',
  e2m1: 'uint8',
  e4m3: 'float8e4m3fn',
};
