import type { Architecture, ModelConfig } from './architecture.js';
import { buildDecoder, decoderTensors } from './blocks/decoder.js';
import { ConfigReader } from './config-reader.js';
import { parseDecoderConfig, requireLayerTypes } from './decoder-config.js';

interface LlamaConfig extends ModelConfig {
  readonly attentionBias: boolean;
  readonly mlpBias: boolean;
}

/** Llama 1 to 3.x and the many models saved in its form. https://arxiv.org/abs/2302.13971 */
export const llama: Architecture<LlamaConfig> = {
  hfNames: ['LlamaForCausalLM'],

  parseConfig(values) {
    const reader = new ConfigReader(values);
    const config = parseDecoderConfig(reader, { architecture: 'LlamaForCausalLM', maxPositions: 2048 });
    requireLayerTypes(reader, config.numLayers, 'full_attention');
    return {
      ...config,
      attentionBias: reader.boolean('attention_bias', false),
      mlpBias: reader.boolean('mlp_bias', false),
    };
  },

  tensors(config) {
    const { attentionBias, mlpBias } = config;
    return decoderTensors(config, { qkvBias: attentionBias, outputBias: attentionBias, mlpBias, qkNorm: false });
  },

  build: buildDecoder,
};
