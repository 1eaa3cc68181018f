import type { Architecture } from './architecture.js';
import { buildDecoder, decoderTensors } from './blocks/decoder.js';
import { ConfigReader } from './config-reader.js';
import { parseDecoderConfig, parseQwenWindows, refuseBias } from './decoder-config.js';

/** Llama with biases on q, k and v, and a window in the upper layers on request. https://arxiv.org/abs/2407.10671 */
export const qwen2: Architecture = {
  hfNames: ['Qwen2ForCausalLM'],

  parseConfig(values) {
    const reader = new ConfigReader(values);
    const defaults = { architecture: 'Qwen2ForCausalLM', maxPositions: 32_768, numKvHeads: 32 };
    const config = parseDecoderConfig(reader, defaults);
    refuseBias(reader, 'mlp_bias');
    return { ...config, windows: parseQwenWindows(reader, config.numLayers) };
  },

  tensors: (config) => decoderTensors(config, { qkvBias: true, outputBias: false, mlpBias: false, qkNorm: false }),

  build: buildDecoder,
};
