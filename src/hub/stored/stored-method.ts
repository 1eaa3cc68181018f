import type { StoredFormat, StoredParts } from '../../graph/ir.js';
import type { ConfigFields } from './config-fields.js';
import type { StoredModule } from './stored-module.js';

/** One quantized matrix of a checkpoint: what its codes mean and where they are. */
export interface StoredMatrix {
  /** Rows and columns of the weight. */
  readonly n: number;
  readonly k: number;
  readonly format: StoredFormat;
  readonly parts: StoredParts;
}

/** How the modules of one checkpoint are stored. */
export interface StoredReader {
  /** Suffixes of small tensors whose values decide about the graph: they are read before `describe`. */
  readonly valueSuffixes: readonly string[];
  /** Whole sentences, for the user. */
  readonly warnings: readonly string[];
  /**
   * undefined when the module's weight is not quantized.
   * @throws UserError `invalid_checkpoint` naming a tensor that is missing or not what the config says.
   */
  describe(module: StoredModule): StoredMatrix | undefined;
}

/** A way to store quantized weights: one for each `quant_method`. */
export interface StoredMethod {
  readonly name: string;
  /** @throws UnsupportedError `unsupported_model` naming a field whose value fdq does not load. */
  parse(config: ConfigFields): StoredReader;
}

export function countGroups(k: number, groupK: number): number {
  return groupK === 0 ? 1 : Math.ceil(k / groupK);
}

/** What is said of scales for keys and values that a checkpoint brings along. */
export const KV_SCALES_WARNING =
  'The checkpoint has scales for a quantized KV cache; fdq computes them from the keys and values instead, where ' +
  '--kv-cache-dtype asks for a quantized cache.';
