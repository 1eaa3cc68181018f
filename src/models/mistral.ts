import type { Architecture } from './architecture.js';
import { buildDecoder, decoderTensors } from './blocks/decoder.js';
import { ConfigReader } from './config-reader.js';
import { hasWindow, parseDecoderConfig, refuseBias, requireLayerTypes } from './decoder-config.js';

/** Llama with a sliding window in every layer, unless `sliding_window` is null. https://arxiv.org/abs/2310.06825 */
export const mistral: Architecture = {
  hfNames: ['MistralForCausalLM'],

  parseConfig(values) {
    const reader = new ConfigReader(values);
    const defaults = { architecture: 'MistralForCausalLM', maxPositions: 131_072, numKvHeads: 8 };
    const config = parseDecoderConfig(reader, defaults);
    refuseBias(reader, 'attention_bias');
    refuseBias(reader, 'mlp_bias');
    const window = hasWindow(reader) ? reader.size('sliding_window', 4096) : 0;
    requireLayerTypes(reader, config.numLayers, window === 0 ? 'full_attention' : 'sliding_attention');
    return { ...config, windows: config.windows.map(() => window) };
  },

  tensors: (config) => decoderTensors(config, { qkvBias: false, outputBias: false, mlpBias: false, qkNorm: false }),

  build: buildDecoder,
};
