/**
 * The in-memory form of an ONNX graph. Large initializers are lazy: they say where their bytes come
 * from, and nobody reads them before the graph is final.
 */

/** Names of ONNX TensorProto element types that fdq handles. */
export type DataType =
  | 'float32'
  | 'float16'
  | 'bfloat16'
  | 'float64'
  | 'float8e4m3fn'
  | 'float4e2m1'
  | 'int4'
  | 'uint4'
  | 'int8'
  | 'uint8'
  | 'int32'
  | 'int64'
  | 'bool';

/** A fixed size, or the name of a symbolic one. */
export type Dimension = number | string;

export interface ValueInfo {
  readonly name: string;
  readonly dataType: DataType;
  readonly shape: readonly Dimension[];
}

export type Attribute =
  | { readonly type: 'int'; readonly value: number }
  | { readonly type: 'float'; readonly value: number }
  | { readonly type: 'string'; readonly value: string }
  | { readonly type: 'ints'; readonly value: readonly number[] }
  | { readonly type: 'floats'; readonly value: readonly number[] }
  | { readonly type: 'strings'; readonly value: readonly string[] }
  | { readonly type: 'tensor'; readonly value: TensorValue }
  | { readonly type: 'graph'; readonly value: Subgraph }
  | { readonly type: 'graphs'; readonly value: readonly Subgraph[] };

/** A small constant, little-endian. */
export interface TensorValue {
  readonly dataType: DataType;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

export interface GraphNode {
  /** Unique, path-like: `/model/layers.3/self_attn/qkv_proj/Gemm`. */
  readonly name: string;
  readonly opType: string;
  /** '' is the standard ONNX domain. */
  readonly domain: string;
  /** An absent optional input is ''. */
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly attributes: Readonly<Record<string, Attribute>>;
}

/** Input or output of a body; what is absent is inferred by whoever runs it. */
export interface BodyValue {
  readonly name: string;
  readonly dataType?: DataType;
  readonly shape?: readonly Dimension[];
}

/**
 * The body of an If, a Loop or a Scan. Its nodes may also read what the graph around it defines before the node that
 * has the body; a name the body defines itself is the body's.
 */
export interface Subgraph {
  readonly name: string;
  readonly inputs: readonly BodyValue[];
  readonly outputs: readonly BodyValue[];
  /** In topological order. Names are unique in the whole model. */
  readonly nodes: readonly GraphNode[];
  readonly initializers: ReadonlyMap<string, Initializer>;
  /** Shapes of intermediate values, where known. */
  readonly values: ReadonlyMap<string, ValueInfo>;
}

/** One tensor as it lies in a file: `byteLength` bytes at `offset` of `file`. */
export interface WeightSource {
  /** The checkpoint's own, unfused name, e.g. `model.layers.0.self_attn.q_proj.weight`. */
  readonly name: string;
  readonly dataType: DataType;
  readonly shape: readonly number[];
  /** Absolute path. */
  readonly file: string;
  /** Absolute byte offset in the file. */
  readonly offset: number;
  readonly byteLength: number;
  /** The file has the transpose of this matrix. */
  readonly transposed?: true;
  /** Present when the checkpoint has this weight quantized; `dataType` and `shape` are then those it stands for. */
  readonly stored?: StoredWeight;
}

/** How a weight lies quantized in its checkpoint. */
export interface StoredWeight {
  /** `quant_method` of the checkpoint, e.g. `gptq`. */
  readonly method: string;
  /**
   * Canonical name of the scheme it is, e.g. `wint4:g128`; a stored format that no scheme has says how it differs,
   * e.g. `wint4:g32:asymmetric`.
   */
  readonly scheme: string;
  /** Members of a fused layer with the same object here can be one layer; see src/quant/stored-scheme.ts. */
  readonly format: StoredFormat;
  readonly parts: StoredParts;
}

/** What stored codes mean; `native` is a NativeFormat of src/quant/scheme.ts. */
export interface StoredFormat {
  readonly native: {
    readonly format: 'int8' | 'int4' | 'e2m1' | 'e4m3';
    readonly groupN: 0 | 1 | 128;
    readonly groupK: number;
    readonly block?: { readonly columns: 16; readonly type: 'e4m3' };
    readonly asymmetric?: true;
  };
  /** What the checkpoint wants done to the layer's input. */
  readonly activation: 'none' | 'e4m3_group128' | 'e4m3_token' | 'int8_token' | 'e4m3_static' | 'int8_static';
  /** Of the static rules. */
  readonly activationScale?: number;
  /** Column of x that each column of the codes belongs to, a permutation of 0 .. k - 1; absent: the same one. */
  readonly columnOrder?: Int32Array;
}

/** A tensor of the checkpoint that a stored weight is made of. */
export interface StoredPart {
  readonly name: string;
  /** Absolute path. */
  readonly file: string;
  /** Absolute byte offset in the file. */
  readonly offset: number;
  readonly byteLength: number;
}

export interface StoredParts {
  readonly codes: StoredPart & {
    /**
     * rows: [n, k], lowest bits first, each row `rowBytes` long. gptq: int32 [k / per word, n], a word holds
     * consecutive k. awq: int32 [k, n / 8], a word holds eight rows in the order 0 2 4 6 1 3 5 7.
     */
    readonly layout: 'rows' | 'gptq' | 'awq';
    /** Of layout rows; 0 otherwise. */
    readonly rowBytes: number;
    /** Stored is code + 2^(bits - 1), without a sign. */
    readonly offsetBinary: boolean;
  };
  readonly scales: StoredPart & {
    /** rows [n, groups], columns [groups, n], tiles [ceil(n / 128), ceil(k / 128)], tensor: one. */
    readonly layout: 'rows' | 'columns' | 'tiles' | 'tensor';
    readonly type: 'float32' | 'float16' | 'bfloat16' | 'e8m0';
    /** Stored is 1 / scale. */
    readonly reciprocal: boolean;
    /** What is stored, of layout tensor, where it was read already. */
    readonly value?: number;
  };
  /** e4m3 [n, ceil(k / 16)] */
  readonly blockScales?: StoredPart;
  /** Of a symmetric format: to prove that all are the middle of the range. */
  readonly zeroPoints?: StoredPart & {
    /** gptq, awq: int32 [groups, n / per word] in the order of the codes; packed_rows: int32 [n / per word, groups]. */
    readonly layout: 'gptq' | 'awq' | 'packed_rows';
    /** Stored is the zero point minus one. */
    readonly minusOne: boolean;
  };
}

export type InitializerData =
  /** Little-endian bytes kept in the model itself: small constants. */
  | { readonly kind: 'inline'; readonly bytes: Uint8Array }
  /**
   * Checkpoint tensors concatenated along axis 0, all of the initializer's data type (a float32
   * initializer may name 16-bit sources: they are widened when loaded). One member is the usual case; a
   * fused projection (q/k/v, gate/up) has several, in row order.
   */
  | { readonly kind: 'weight'; readonly members: readonly WeightSource[]; readonly addend?: number }
  /** Bytes in an ONNX external-data file. */
  | { readonly kind: 'external'; readonly file: string; readonly offset: number; readonly byteLength: number }
  /** One part of a quantized linear layer, see `QuantizedPart`. */
  | { readonly kind: 'quantized'; readonly layer: QuantizedLayer; readonly part: QuantizedPart };

export type QuantizedPart = 'weight' | 'scales' | 'block_scales' | 'zero_points';

/** A linear layer the quantizer has rewritten; its parts are produced together, by one pass over the members. */
export interface QuantizedLayer {
  /** Name of the graph node that reads it. */
  readonly node: string;
  /** Canonical scheme name, e.g. `wint4:g128`. */
  readonly scheme: string;
  /** `[n_i, k]` matrices stacked along n. */
  readonly members: readonly WeightSource[];
  /**
   * Matrices whose largest magnitude gives the tensor scale of every member: those of the float layer, whatever became
   * of the others. Absent: each member has its own, or the scheme has none.
   */
  readonly scaleGroup?: readonly WeightSource[];
}

export interface Initializer {
  readonly name: string;
  readonly dataType: DataType;
  readonly shape: readonly number[];
  readonly data: InitializerData;
}

export interface Graph {
  readonly name: string;
  /** Domain → version. */
  readonly opsets: ReadonlyMap<string, number>;
  readonly inputs: readonly ValueInfo[];
  readonly outputs: readonly ValueInfo[];
  /** In topological order. */
  readonly nodes: readonly GraphNode[];
  readonly initializers: ReadonlyMap<string, Initializer>;
  /** Shapes of intermediate values, where known. */
  readonly values: ReadonlyMap<string, ValueInfo>;
  readonly metadata: ReadonlyMap<string, string>;
}
