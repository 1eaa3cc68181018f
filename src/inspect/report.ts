import type { LayerError } from '../load/weight-meter.js';
/** What `fdq inspect --json` prints: docs/inspect.md says which keys stay as they are. */
export interface InspectReport {
  readonly schema: typeof REPORT_SCHEMA;
  readonly model: ModelFacts;
  /** Canonical scheme name asked for, `mix_quant` for several, `none`; what a file has for files. */
  readonly scheme: string;
  /** Types of activations and cache, and the kernels' instruction set; null where no model of fdq is described. */
  readonly arithmetic: ArithmeticFacts | null;
  /** Matrices, in the order of the graph. */
  readonly layers: readonly LayerRow[];
  /** Weights that are no matrices of layers: norms, biases, tables. */
  readonly others: WeightGroup;
  readonly totals: Totals;
  readonly memory: MemoryForecast | null;
  /** Bytes the weights would take under each scheme, all other settings kept. */
  readonly alternatives: readonly Alternative[];
  readonly warnings: readonly string[];
}

export const REPORT_SCHEMA = 'fdq-inspect/1';

export interface ModelFacts {
  /** As the user wrote it. */
  readonly reference: string;
  /** Folder or file. */
  readonly path: string;
  /** `checkpoint`: safetensors; `fdq`: a folder fdq wrote; `onnx`: any other ONNX model. */
  readonly kind: 'checkpoint' | 'fdq' | 'genai' | 'onnx';
  /** Hugging Face class name, or what an ONNX model says made it. */
  readonly architecture: string | null;
  readonly revision: string | null;
  /** Elements of all weights. */
  readonly parameters: number;
  /** Bytes of all weights in the model's files. */
  readonly storedBytes: number;
}

export interface ArithmeticFacts {
  readonly compute: string;
  readonly kvCacheDtype: string;
  readonly kvBytesPerToken: number;
  readonly provider: 'cpu';
  readonly isa: string;
}

/** One matrix of the model. */
export interface LayerRow {
  /** Unfused checkpoint name without `.weight`. */
  readonly name: string;
  readonly tensor: string;
  /** What it is for: `linear`, `expert`, `embedding`, `lm_head`, ...; the operator in foreign ONNX models. */
  readonly kind: string;
  /** [n, k] */
  readonly shape: readonly number[];
  /** Type in the model's files. */
  readonly storedType: string;
  /** Canonical scheme name, `none` as stored; a description where an ONNX model has what no scheme of fdq is. */
  readonly scheme: string;
  /** `W4A16`; null where it is not known. */
  readonly precision: string | null;
  /**
   * In the model's files, or, for a folder of `fdq convert`, in those of the checkpoint it was made from; null for ONNX
   * models in reports of older versions.
   */
  readonly bytesBefore: number | null;
  /** In memory, padding and scales included. */
  readonly bytesAfter: number;
  /** The rule that decided, or where the scheme was read. */
  readonly rule: string;
  /** What will compute the layer. */
  readonly kernel: string;
  /** Present after `--measure` for what fdq quantizes, else null. */
  readonly error: LayerError | null;
}

export interface WeightGroup {
  readonly tensors: number;
  readonly parameters: number;
  readonly bytesBefore: number;
  readonly bytesAfter: number;
}

export interface Totals {
  readonly layers: number;
  readonly quantizedLayers: number;
  /** Of everything, `others` included. */
  readonly bytesBefore: number;
  readonly bytesAfter: number;
  /** Bits an element of a layer takes, scales and padding included. */
  readonly bitsPerWeight: number;
  /** Of all measured layers together; null without `--measure`. */
  readonly error: Pick<LayerError, 'frobenius' | 'maxAbs' | 'sqnrDb' | 'saturated' | 'zeroScales'> | null;
}

/** Bytes, predicted from headers alone. */
export interface MemoryForecast {
  readonly availableBytes: number;
  /** The part of it that may be used. */
  readonly usableBytes: number;
  readonly weightBytes: number;
  /** While weights are read and quantized. */
  readonly peakLoadBytes: number;
  /** With the KV cache full. */
  readonly peakServiceBytes: number;
  readonly kvCacheBytes: number;
  readonly kvCacheTokens: number;
  readonly fits: boolean;
  /** Why not; null when it fits. */
  readonly problem: string | null;
}

export interface Alternative {
  readonly scheme: string;
  readonly precision: string;
  readonly weightBytes: number;
  /** Weights, workspace and one block of KV cache fit; null where the machine is not known. */
  readonly fits: boolean | null;
}
