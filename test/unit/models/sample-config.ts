import type { CheckpointTensor } from '../../../src/models/checkpoint-weights.js';
import { expandTensors } from '../../../src/models/checkpoint-weights.js';
import { loadArchitecture } from '../../../src/models/registry.js';

type RawConfig = Readonly<Record<string, unknown>>;

/** A small valid config of an architecture; `changes` overrides keys, undefined removes them. */
export function sampleConfig(architecture: string, changes: RawConfig = {}): RawConfig {
  const config: Record<string, unknown> = {
    architectures: [architecture],
    hidden_size: 32,
    intermediate_size: 48,
    num_hidden_layers: 3,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    head_dim: 8,
    vocab_size: 64,
    max_position_embeddings: 128,
    tie_word_embeddings: false,
    ...changes,
  };
  return Object.fromEntries(Object.entries(config).filter(([, value]) => value !== undefined));
}

const BYTES: Readonly<Record<string, number>> = { BF16: 2, F16: 2, F32: 4 };

/** Headers of a checkpoint that fits `config`, laid out one tensor after the other. */
export async function sampleTensors(config: RawConfig, dtype = 'BF16'): Promise<Map<string, CheckpointTensor>> {
  const architecture = await loadArchitecture(config);
  const parsed = architecture.parseConfig(config);
  const tensors = new Map<string, CheckpointTensor>();
  let offset = 1024;
  for (const { name, shape } of expandTensors(architecture.tensors(parsed), parsed.numLayers)) {
    const byteLength = (BYTES[dtype] ?? 1) * shape.reduce((product, size) => product * size, 1);
    tensors.set(name, { name, dtype, shape, file: '/models/sample.safetensors', offset, byteLength });
    offset += byteLength;
  }
  return tensors;
}
