/**
 * The typed contract of the native addon: every native function, in one file. Nothing else in src/ talks to
 * the addon. Native code never throws for bad model data it was told the size of; it re-checks only what would
 * corrupt memory.
 */

export interface RuntimeInfo {
  readonly version: string;
  readonly buildInfo: string;
  readonly providers: readonly string[];
}

export type IsaName = 'scalar' | 'avx2' | 'avx512' | 'avx512_bf16' | 'amx';

/** A tensor handed to a session: `byteLength` bytes at `byteOffset` of memory from `allocate` or `mapFile`. */
export interface NativeInitializer {
  readonly name: string;
  /** ONNX TensorProto.DataType number. */
  readonly elementType: number;
  readonly shape: readonly number[];
  readonly memory: ArrayBuffer;
  readonly byteOffset: number;
  readonly byteLength: number;
}

export interface SessionOptions {
  /** Serialized ONNX model whose large initializers are named but absent. */
  readonly model: Uint8Array;
  readonly initializers: readonly NativeInitializer[];
  /** Folder with an empty file `fdq-weights`, the location every absent initializer names in the model. */
  readonly placeholderFolder: string;
  readonly threads: number;
  /** Threads busy-wait between operators: lower latency, one core burnt for about a millisecond after a run. */
  readonly spinning: boolean;
  readonly isa: IsaName;
  readonly kvCache?: KvCacheOptions;
}

/** How keys and values are stored; custom-ops/include/fdq/kv_cache.h. */
export type KvDataType = 'float32' | 'bfloat16' | 'int8' | 'fp8' | 'int4';

export interface KvCacheOptions {
  readonly dataType: KvDataType;
  readonly numLayers: number;
  readonly numBlocks: number;
  readonly numKvHeads: number;
  readonly headDim: number;
  /** Bytes of the whole pool; any other number than the kernels reckon with is refused. */
  readonly byteLength: number;
}

/** Memory of a tensor fed to or filled by a run; the native side keeps it alive. */
export interface NativeTensor {
  readonly name: string;
  readonly elementType: number;
  readonly shape: readonly number[];
  readonly data: ArrayBufferView;
}

export interface NativeSession {
  readonly inputNames: readonly string[];
  readonly outputNames: readonly string[];
  /**
   * Runs off the JS thread. `inputs` are read and `outputs` written in place: neither may be touched until
   * the promise settles. Output shapes must be exactly what the graph produces.
   */
  run(inputs: readonly NativeTensor[], outputs: readonly NativeTensor[]): Promise<void>;
  /**
   * Runs the graph and then draws from `logits` (a float32 output, [rows, vocab]) in the same trip to
   * the worker thread.
   */
  runAndSample(
    inputs: readonly NativeTensor[],
    logits: NativeTensor,
    sampling: SamplingBatch,
  ): Promise<SamplingResult>;
  /** Waits for the run under way, then frees everything. Idempotent. */
  close(): Promise<void>;
}

/** Sampling parameters of each logits row, as columns. See SampleParams in custom-ops/include/fdq/ops.h. */
export interface SamplingBatch {
  readonly rows: number;
  readonly vocab: number;
  readonly temperature: Float32Array;
  readonly topK: Int32Array;
  readonly topP: Float32Array;
  readonly minP: Float32Array;
  readonly repetitionPenalty: Float32Array;
  readonly presencePenalty: Float32Array;
  readonly frequencyPenalty: Float32Array;
  readonly seed: BigUint64Array;
  readonly counter: BigUint64Array;
  /** -1: draw a token. Else: report this one. */
  readonly target: Int32Array;
  readonly numTop: Int32Array;
  /** Ragged lists: those of row r are `ids[starts[r]] .. ids[starts[r + 1] - 1]`. */
  readonly promptIds: RaggedIds;
  readonly outputIds: RaggedIds;
  readonly biasIds: RaggedIds;
  readonly biasValues: Float32Array;
  readonly bannedIds: RaggedIds;
  readonly allowedIds: RaggedIds;
}

export interface RaggedIds {
  /** [rows + 1] */
  readonly starts: Int32Array;
  readonly ids: Int32Array;
}

export interface SamplingResult {
  /** [rows]; -1 where nothing can be drawn. */
  readonly ids: Int32Array;
  readonly logprobs: Float32Array;
  readonly ranks: Int32Array;
  /** [rows, max(numTop)], most likely first; -1 past a row's numTop. */
  readonly topIds: Int32Array;
  readonly topLogprobs: Float32Array;
  /** Largest numTop: the stride of the two above. */
  readonly topStride: number;
}

export type WeightFormatName = 'int8' | 'int4' | 'int2' | 'nf4' | 'e2m1' | 'e4m3';
export type ActivationRuleName =
  'none' | 'e4m3_group128' | 'e4m3_token' | 'int8_token' | 'e4m3_static' | 'int8_static';

/** Narrow scales of so many columns of a row each; custom-ops/include/fdq/formats.h. */
export interface BlockScales {
  readonly columns: 16 | 32 | 64;
  readonly type: 'e4m3' | 'e8m0' | 'bfloat16';
}

/** Reads one [n, k] matrix and quantizes it straight into its final place, on `threads` threads. */
export interface QuantizeJob {
  /** A file and a byte offset in it, or bytes in memory. */
  readonly source: { readonly fd: number; readonly offset: number } | { readonly bytes: Uint8Array };
  readonly dataType: 'float32' | 'float16' | 'bfloat16';
  readonly n: number;
  readonly k: number;
  readonly format: WeightFormatName;
  /** 1, 128, 0: one scale a tensor, -1: no float32 scales. */
  readonly groupN: -1 | 0 | 1 | 128;
  /** 0: one scale a row. */
  readonly groupK: number;
  readonly block?: BlockScales;
  /** Scales of the smallest squared error: int4 in groups, and int2, which has no other. */
  readonly search?: boolean;
  /**
   * Of groupN 0: what is quantized to instead of the matrix's own scale, which is its largest magnitude by that of the
   * format. As a float32 finite and above 0, else a TypeError; values beyond what it reaches saturate.
   */
  readonly tensorScale?: number;
  /** Panels of custom-ops/include/fdq/formats.h, or the canonical order of the golden vectors. */
  readonly packed: boolean;
  readonly weight: Uint8Array;
  readonly scales: Float32Array;
  /** Present when `block` is. */
  readonly blockScales?: Uint8Array;
  readonly threads: number;
  /** Absent: the best of this machine. All give the same bytes. */
  readonly isa?: IsaName;
}

export type QuantizeResult =
  | { readonly status: 'ok' }
  | { readonly status: 'non_finite'; readonly row: number; readonly column: number }
  | { readonly status: 'short_read' }
  | { readonly status: 'io_error'; readonly errno: number };

/** A matrix whose largest magnitude is wanted. */
export type MagnitudeJob = Pick<QuantizeJob, 'source' | 'dataType' | 'n' | 'k' | 'threads' | 'isa'>;

export type MagnitudeResult =
  { readonly status: 'ok'; readonly largest: number } | Exclude<QuantizeResult, { readonly status: 'ok' }>;

/** A tensor in a file. */
export interface StoredRange {
  readonly fd: number;
  readonly offset: number;
}

/**
 * Repacks one [n, k] matrix that a checkpoint stores quantized into panels, on `threads` threads. Layouts are those
 * of StoredParts in src/graph/ir.ts; sizes follow from n, k and the format.
 */
export interface RepackJob {
  readonly n: number;
  readonly k: number;
  readonly format: 'int8' | 'int4' | 'e2m1' | 'e4m3';
  readonly groupN: 0 | 1 | 128;
  /** 0: one scale a row. */
  readonly groupK: number;
  readonly codes: StoredRange & {
    readonly layout: 'rows' | 'gptq' | 'awq';
    readonly rowBytes: number;
    readonly offsetBinary: boolean;
  };
  readonly scales: StoredRange & {
    readonly layout: 'rows' | 'columns' | 'tiles' | 'tensor';
    readonly type: 'float32' | 'float16' | 'bfloat16' | 'e8m0';
    readonly reciprocal: boolean;
  };
  /** e4m3, one for 16 columns of a row. */
  readonly blockScales?: StoredRange;
  readonly zeroPoints?: StoredRange & {
    readonly layout: 'gptq' | 'awq' | 'packed_rows';
    readonly minusOne: boolean;
  };
  /** [k] */
  readonly columnOrder?: Int32Array;
  readonly target: {
    readonly weight: Uint8Array;
    readonly scales: Float32Array;
    /** Present when `blockScales` is. */
    readonly blockScales?: Uint8Array;
    /** Absent with `zeroPoints`: they are checked to be 0. */
    readonly zeroPoints?: Int8Array;
  };
  readonly threads: number;
}

export type StoredPartName = 'codes' | 'scales' | 'block_scales' | 'zero_points';

export type RepackResult =
  | { readonly status: 'ok' }
  | { readonly status: 'short_read'; readonly part: StoredPartName }
  | { readonly status: 'io_error'; readonly part: StoredPartName; readonly errno: number }
  /** A NaN code. */
  | { readonly status: 'invalid_code'; readonly row: number; readonly column: number }
  /** A scale that is not finite, a block scale that is negative or NaN. */
  | {
      readonly status: 'invalid_scale';
      readonly part: StoredPartName;
      readonly row: number;
      readonly group: number;
    }
  /** A symmetric format with a zero point in it. */
  | {
      readonly status: 'zero_point';
      readonly row: number;
      readonly group: number;
      readonly zeroPoint: number;
    };

/** Panels that `quantize` wrote, and what it wrote them from. */
export interface CompareJob extends Pick<
  QuantizeJob,
  'source' | 'dataType' | 'n' | 'k' | 'format' | 'groupN' | 'groupK' | 'block' | 'threads'
> {
  readonly weight: Uint8Array;
  readonly scales: Float32Array;
  readonly blockScales?: Uint8Array;
}

/** Panels whose float32 values [n, k] are wanted: ((code - zero point) * block scale) * scale, rounded once. */
export interface RestoreJob extends Omit<CompareJob, 'source' | 'dataType' | 'format' | 'groupN'> {
  readonly format: RepackJob['format'];
  readonly groupN: RepackJob['groupN'];
  /** Shaped like the scales of rows. */
  readonly zeroPoints?: Int8Array;
  /** [k]: where each column of the codes goes. */
  readonly columnOrder?: Int32Array;
  /** [n, k] */
  readonly target: Float32Array;
}

/** Sums over every original w and the r that kernels restore; the same for any number of threads. */
export interface WeightError {
  readonly status: 'ok';
  readonly sumW2: number;
  readonly sumR2: number;
  readonly sumWr: number;
  /** Of the squares of w - r. */
  readonly sumE2: number;
  readonly maxAbs: number;
  /** Originals beyond the largest value of the format by more than half its last step. */
  readonly saturated: number;
  /** Scales, of the narrowest kind the format has, that restore nothing but zeros: a 0 was replaced by 1. */
  readonly zeroScales: number;
}

/** Rows of logits, [rows, vocab], on `threads` threads. */
interface LogitRows {
  readonly rows: number;
  readonly vocab: number;
  readonly logits: Float32Array;
  readonly threads: number;
}

export interface ScoreJob extends LogitRows {
  /** [rows]: the token whose likelihood is asked for */
  readonly targets: Int32Array;
  /** [rows, vocab]: logits to diverge from, as they are or as `compressLogits` wrote them */
  readonly reference?: Float32Array | Uint16Array;
}

/** Of each row; NaN where a row holds a NaN or no finite maximum. See custom-ops/include/fdq/score.h. */
export interface Scores {
  /** Negative log likelihood of the target, nats. */
  readonly nll: Float64Array;
  /** Divergence from the reference, nats; 0 without one. */
  readonly divergence: Float64Array;
  /** 1 where both rows have their largest logit at the same index; 1 without a reference. */
  readonly agrees: Uint8Array;
}

export interface CompressJob extends LogitRows {
  /** [rows, vocab]: logit - largest of the row, as binary16 */
  readonly target: Uint16Array;
}

/** Reads a tensor, widening 16-bit floats to float32 (plus `addend`) when `widen` is set. */
export interface ReadJob {
  readonly fd: number;
  readonly offset: number;
  readonly byteLength: number;
  readonly widen?: { readonly from: 'float32' | 'float16' | 'bfloat16'; readonly addend: number };
  readonly target: Uint8Array;
}

export interface NativeAddon {
  /** Opens libonnxruntime and prepares its C API; the same path twice is fine. */
  loadRuntime(libraryPath: string): RuntimeInfo;
  /** Best ISA of this machine. */
  detectIsa(): IsaName;
  /** Zero-filled, page-aligned memory outside the JS heap; pages are taken when first touched. */
  allocate(byteLength: number): ArrayBuffer;
  /** Maps part of a file copy-on-write; any offset. */
  mapFile(path: string, offset: number, byteLength: number): ArrayBuffer;
  /** Asks the kernel to read a part of a file into the page cache. */
  prefetch(fd: number, offset: number, byteLength: number): void;
  quantize(job: QuantizeJob): Promise<QuantizeResult>;
  /** The first of the two passes that `quantize` makes where a tensor has one scale. */
  measureMagnitude(job: MagnitudeJob): Promise<MagnitudeResult>;
  /** How far quantized weights are from their originals; reads the source again, in bands of 128 rows. */
  compareWeight(job: CompareJob): Promise<WeightError | Exclude<QuantizeResult, { readonly status: 'ok' }>>;
  read(job: ReadJob): Promise<QuantizeResult>;
  repackWeight(job: RepackJob): Promise<RepackResult>;
  scoreLogits(job: ScoreJob): Promise<Scores>;
  compressLogits(job: CompressJob): Promise<void>;
  /** What packed weights stand for, on `threads` threads. */
  restoreWeight(job: RestoreJob): Promise<void>;
  createSession(options: SessionOptions): Promise<NativeSession>;
  /** Runs one linear layer without a session, for contract tests and benchmarks. */
  runLinear(job: LinearJob): Promise<Float32Array>;
  /** Largest sequential read rate of `threads` threads over buffers of `byteLength` each, bytes per second. */
  measureReadBandwidth(threads: number, byteLength: number): Promise<number>;
}

export interface LinearJob {
  readonly format: WeightFormatName | 'float32' | 'float16' | 'bfloat16';
  readonly memberRows: readonly number[];
  readonly k: number;
  readonly groupN: -1 | 0 | 1 | 128;
  readonly groupK: number;
  readonly block?: BlockScales;
  readonly weight: Uint8Array;
  readonly scales?: Float32Array;
  readonly blockScales?: Uint8Array;
  readonly zeroPoints?: Int8Array;
  readonly bias?: Float32Array;
  readonly activation: ActivationRuleName;
  /** Of the static rules. */
  readonly activationScale?: number;
  readonly compute: 'float32' | 'bfloat16';
  readonly isa: IsaName;
  readonly threads: number;
  readonly x: Float32Array;
  readonly tokens: number;
}
