import { UserError } from '../errors.js';
import type {
  KvCacheOptions,
  IsaName,
  NativeInitializer,
  NativeSession,
  NativeTensor,
  SamplingResult,
} from './addon.js';
import { KV_BLOCK_SIZE } from './kv-layout.js';
import { placeholderFolder, type Runtime } from './load-addon.js';
import type { ModelRunner, StepBatch } from './model-runner.js';

/** ONNX TensorProto.DataType numbers of the step's inputs and outputs. */
const FLOAT = 1;
const INT32 = 6;
const INT64 = 7;

export interface RunnerOptions {
  readonly runtime: Runtime;
  /** Serialized decoder graph, see src/models/architecture.ts for its inputs and outputs. */
  readonly model: Uint8Array;
  readonly initializers: readonly NativeInitializer[];
  readonly kvCache: KvCacheOptions;
  readonly threads: number;
  readonly isa: IsaName;
  readonly vocabSize: number;
  readonly maxModelLen: number;
  readonly maxLogitRows: number;
  readonly maxBatchedTokens: number;
}

/** Creates the session and the buffers of a step. */
export async function createOnnxRunner(options: RunnerOptions): Promise<OnnxRunner> {
  const { addon } = options.runtime;
  const logits = addon.allocate(options.maxLogitRows * options.vocabSize * Float32Array.BYTES_PER_ELEMENT);
  const session = await wrapFailure('build the model', () =>
    addon.createSession({
      model: options.model,
      initializers: options.initializers,
      placeholderFolder: placeholderFolder(),
      threads: options.threads,
      spinning: true,
      isa: options.isa,
      kvCache: options.kvCache,
    }),
  );
  return new OnnxRunner(options, session, new Float32Array(logits));
}

/** A decoder graph in an ONNX Runtime session, with its KV pool beside it. */
export class OnnxRunner implements ModelRunner {
  readonly vocabSize: number;
  readonly maxModelLen: number;
  readonly blockSize = KV_BLOCK_SIZE;
  readonly numBlocks: number;
  readonly maxLogitRows: number;
  readonly maxBatchedTokens: number;
  readonly #session: NativeSession;
  readonly #logits: Float32Array;
  readonly #inputIds: Int32Array;
  readonly #logitIndices: Int32Array;

  constructor(options: RunnerOptions, session: NativeSession, logits: Float32Array) {
    this.vocabSize = options.vocabSize;
    this.maxModelLen = options.maxModelLen;
    this.numBlocks = options.kvCache.numBlocks;
    this.maxLogitRows = options.maxLogitRows;
    this.maxBatchedTokens = options.maxBatchedTokens;
    this.#session = session;
    this.#logits = logits;
    // int64 inputs, written as pairs of 32-bit words: the upper one stays zero.
    this.#inputIds = new Int32Array(2 * options.maxBatchedTokens);
    this.#logitIndices = new Int32Array(2 * options.maxLogitRows);
  }

  async step(batch: StepBatch): Promise<SamplingResult> {
    return wrapFailure('run a step', () =>
      this.#session.runAndSample(this.#inputs(batch), this.#logitsTensor(batch), batch.sampling),
    );
  }

  /** Runs a step and returns its logits, [rows, vocabSize], valid until the next step. */
  async logits(batch: Omit<StepBatch, 'sampling'>): Promise<Float32Array> {
    const output = this.#logitsTensor(batch);
    await wrapFailure('run a step', () => this.#session.run(this.#inputs(batch), [output]));
    return output.data as Float32Array;
  }

  async close(): Promise<void> {
    await this.#session.close();
  }

  #inputs(batch: Omit<StepBatch, 'sampling'>): readonly NativeTensor[] {
    const tokens = batch.tokenIds.length;
    const sequences = batch.contextLengths.length;
    const rows = batch.logitIndices.length;
    return [
      int64Tensor('input_ids', this.#inputIds, batch.tokenIds),
      int32Tensor('positions', [tokens], batch.positions),
      int32Tensor('query_starts', [sequences + 1], batch.queryStarts),
      int32Tensor('context_lengths', [sequences], batch.contextLengths),
      int32Tensor('block_tables', [sequences, batch.blockTableStride], batch.blockTables),
      int64Tensor('logit_indices', this.#logitIndices.subarray(0, 2 * rows), batch.logitIndices),
    ];
  }

  #logitsTensor(batch: Omit<StepBatch, 'sampling'>): NativeTensor {
    const rows = batch.logitIndices.length;
    return {
      name: 'logits',
      elementType: FLOAT,
      shape: [rows, this.vocabSize],
      data: this.#logits.subarray(0, rows * this.vocabSize),
    };
  }
}

function int32Tensor(name: string, shape: readonly number[], data: Int32Array): NativeTensor {
  return { name, elementType: INT32, shape, data };
}

function int64Tensor(name: string, words: Int32Array, values: Int32Array): NativeTensor {
  for (let i = 0; i < values.length; i++) words[2 * i] = values[i] as number;
  return { name, elementType: INT64, shape: [values.length], data: words.subarray(0, 2 * values.length) };
}

async function wrapFailure<T>(what: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new UserError('runtime_failed', `ONNX Runtime could not ${what}: ${reason}`, {
      cause,
      suggestions: ['Please report this with the model and the command line.'],
    });
  }
}
