import type { DataType, Graph, WeightSource } from '../graph/ir.js';
import type { RopeConfig } from './rope-config.js';

/** What every decoder's graph is built from. Sizes are positive safe integers that fit together. */
export interface ModelConfig {
  /** Hugging Face class name, e.g. `LlamaForCausalLM`. */
  readonly architecture: string;
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly numLayers: number;
  readonly numHeads: number;
  readonly numKvHeads: number;
  readonly headDim: number;
  /** Longest sequence the model can address, scaling of the positions included. */
  readonly maxPositions: number;
  readonly normEpsilon: number;
  readonly rope: RopeConfig;
  /** Sliding window of each layer: a position sees itself and the `window - 1` before it; 0 sees all. */
  readonly windows: readonly number[];
  /** The output projection is the embedding matrix. */
  readonly tiedEmbeddings: boolean;
}

/** Only `linear` tensors are quantized by default; what happens to the rest is the plan's decision. */
export type TensorRole = 'embedding' | 'linear' | 'lm_head' | 'norm' | 'bias';

/** One row of an architecture's table of checkpoint tensors. */
export interface TensorSpec {
  /** Checkpoint name; `{layer}` stands for every layer index. */
  readonly name: string;
  readonly shape: readonly number[];
  readonly role: TensorRole;
  /** Name of the initializer this is a row range of, in the order of the table. Absent: one of its own. */
  readonly fusedInto?: string;
}

/** The checked tensors of a checkpoint, by the names of the table. */
export interface WeightLookup {
  tensor(name: string): WeightSource;
  /** Members of a fused initializer in row order, or the one tensor of that name; none when the table has neither. */
  members(name: string): readonly WeightSource[];
}

export interface DecoderInfo {
  readonly architecture: string;
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly numLayers: number;
  readonly numHeads: number;
  readonly numKvHeads: number;
  readonly headDim: number;
  readonly maxPositions: number;
  /** Positions further back than this are never read by any layer; absent when some layer sees all. */
  readonly slidingWindow?: number;
  readonly tiedEmbeddings: boolean;
  /** How the embedding is stored. */
  readonly storedDataType: DataType;
}

/**
 * Inputs of the graph (int32 unless noted): `input_ids` int64 [tokens], `positions` [tokens], `query_starts`
 * [sequences + 1], `context_lengths` [sequences], `block_tables` [sequences, max_blocks], `logit_indices` int64
 * [rows]. Output: `logits` float32 [rows, vocab].
 */
export interface DecoderGraph {
  readonly graph: Graph;
  readonly info: DecoderInfo;
}

export interface DecoderModel extends DecoderGraph {
  readonly config: ModelConfig;
  /** Checkpoint tensors the architecture does not know, known leftovers aside. */
  readonly unusedTensors: readonly string[];
}

/** One file per architecture exports one of these; the registry names it. */
export interface Architecture<Config extends ModelConfig = ModelConfig> {
  readonly hfNames: readonly string[];
  /** @throws UserError `invalid_checkpoint`, UnsupportedError `unsupported_model`, naming the key and its value. */
  parseConfig(config: Readonly<Record<string, unknown>>): Config;
  tensors(config: Config): readonly TensorSpec[];
  build(config: Config, weights: WeightLookup): DecoderGraph;
}
