import type { Architecture, ModelConfig } from './architecture.js';
import { buildDecoder, decoderTensors } from './blocks/decoder.js';
import { ConfigReader } from './config-reader.js';
import { parseDecoderConfig, parseQwenWindows, refuseBias } from './decoder-config.js';

interface Qwen3Config extends ModelConfig {
  readonly attentionBias: boolean;
}

/** Qwen2 without its biases, but with RMSNorm over each head of q and k before rotation. https://arxiv.org/abs/2505.09388 */
export const qwen3: Architecture<Qwen3Config> = {
  hfNames: ['Qwen3ForCausalLM'],

  parseConfig(values) {
    const reader = new ConfigReader(values);
    const defaults = { architecture: 'Qwen3ForCausalLM', maxPositions: 32_768, numKvHeads: 32, headDim: 128 };
    const config = parseDecoderConfig(reader, defaults);
    refuseBias(reader, 'mlp_bias');
    return {
      ...config,
      windows: parseQwenWindows(reader, config.numLayers),
      attentionBias: reader.boolean('attention_bias', false),
    };
  },

  tensors(config) {
    const { attentionBias } = config;
    return decoderTensors(config, { qkvBias: attentionBias, outputBias: attentionBias, mlpBias: false, qkNorm: true });
  },

  build: buildDecoder,
};
