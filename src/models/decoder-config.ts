import type { ModelConfig } from './architecture.js';
import type { ConfigReader } from './config-reader.js';
import { refuseUnsupportedKeys } from './refused-keys.js';
import { parseRope, scaledMaxPositions } from './rope-config.js';

/** Far above any model, low enough that a table of all layers stays small. */
const MAX_LAYERS = 10_000;
const MAX_VOCAB = 2 ** 24;

/** What transformers assumes when a key is absent; it differs from one architecture to the next. */
export interface ConfigDefaults {
  readonly architecture: string;
  readonly maxPositions: number;
  /** Absent: as many as there are heads. */
  readonly numKvHeads?: number;
  /** Absent: hidden size divided by heads. */
  readonly headDim?: number;
}

/** The keys all decoders share; every layer sees all positions until `windows` says otherwise. */
export function parseDecoderConfig(reader: ConfigReader, defaults: ConfigDefaults): ModelConfig {
  refuseUnsupportedKeys(reader);
  const activation = reader.text('hidden_act', 'silu');
  if (activation !== 'silu' && activation !== 'swish') throw reader.unsupported('hidden_act', 'silu');
  const hiddenSize = reader.size('hidden_size');
  const numHeads = reader.size('num_attention_heads');
  const numKvHeads = parseKvHeads(reader, numHeads, defaults.numKvHeads);
  if (!reader.has('head_dim') && defaults.headDim === undefined && hiddenSize % numHeads !== 0) {
    throw reader.invalid('hidden_size', `a multiple of num_attention_heads, ${numHeads}, as there is no head_dim`);
  }
  const headDim = reader.size('head_dim', defaults.headDim ?? hiddenSize / numHeads);
  const numLayers = reader.size('num_hidden_layers', undefined, MAX_LAYERS);
  const maxPositions = reader.size('max_position_embeddings', defaults.maxPositions);
  const rope = parseRope(reader, headDim, maxPositions);
  return {
    architecture: defaults.architecture,
    vocabSize: reader.size('vocab_size', undefined, MAX_VOCAB),
    hiddenSize,
    intermediateSize: reader.size('intermediate_size'),
    numLayers,
    numHeads,
    numKvHeads,
    headDim,
    maxPositions: scaledMaxPositions(rope, maxPositions),
    normEpsilon: reader.positive('rms_norm_eps', 1e-6),
    rope,
    windows: new Array<number>(numLayers).fill(0),
    tiedEmbeddings: reader.boolean('tie_word_embeddings', false),
  };
}

/** transformers' null means one KV head for each head, an absent key the class's own default. */
function parseKvHeads(reader: ConfigReader, numHeads: number, absent: number | undefined): number {
  const isNull = reader.keys().includes('num_key_value_heads') && !reader.has('num_key_value_heads');
  const numKvHeads = reader.size('num_key_value_heads', isNull ? numHeads : (absent ?? numHeads));
  if (numHeads % numKvHeads !== 0) {
    throw reader.invalid('num_key_value_heads', `a divisor of num_attention_heads, ${numHeads}`);
  }
  return numKvHeads;
}

/** @throws UnsupportedError when the key is true: this architecture has no such biases. */
export function refuseBias(reader: ConfigReader, key: 'attention_bias' | 'mlp_bias'): void {
  if (reader.boolean(key, false)) throw reader.unsupported(key, 'false');
}

/** Qwen's rule: with `use_sliding_window`, layers from `max_window_layers` on have a window, unless `layer_types` says which. */
export function parseQwenWindows(reader: ConfigReader, numLayers: number): readonly number[] {
  const window = reader.boolean('use_sliding_window', false) && hasWindow(reader) ? reader.size('sliding_window', 4096) : 0;
  const types = parseLayerTypes(reader, numLayers);
  if (types !== undefined) {
    if (window === 0 && types.includes('sliding_attention')) {
      throw reader.invalid('layer_types', 'all full_attention, as use_sliding_window or sliding_window turns windows off');
    }
    return types.map((type) => (type === 'sliding_attention' ? window : 0));
  }
  const first = reader.get('max_window_layers') === 0 ? 0 : reader.size('max_window_layers', 28);
  return Array.from({ length: numLayers }, (_, layer) => (layer >= first ? window : 0));
}

/** Whether `sliding_window` is anything but an explicit null. */
export function hasWindow(reader: ConfigReader): boolean {
  return reader.has('sliding_window') || !reader.keys().includes('sliding_window');
}

/** Refuses `layer_types` other than the one every layer of the architecture has. */
export function requireLayerTypes(reader: ConfigReader, numLayers: number, type: LayerType): void {
  if (parseLayerTypes(reader, numLayers)?.some((found) => found !== type)) {
    throw reader.unsupported('layer_types', `${type} for every layer`);
  }
}

type LayerType = 'full_attention' | 'sliding_attention';

function parseLayerTypes(reader: ConfigReader, numLayers: number): readonly LayerType[] | undefined {
  const types = reader.texts('layer_types');
  if (types === undefined) return undefined;
  if (types.length !== numLayers) throw reader.invalid('layer_types', `a list of ${numLayers} entries, one for each layer`);
  const isKnown = (type: string): type is LayerType => type === 'full_attention' || type === 'sliding_attention';
  if (!types.every(isKnown)) throw reader.unsupported('layer_types', 'a list of full_attention and sliding_attention');
  return types;
}
