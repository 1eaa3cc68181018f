import { describe, expect, it } from 'vitest';
import { applyQuantization } from '../../../src/load/apply-quantization.js';
import { buildModel } from '../../../src/models/build-model.js';
import { sampleConfig, sampleTensors } from '../models/sample-config.js';

describe('applyQuantization', () => {
  it.each(['float32', 'bfloat16'] as const)('gives attention and linear layers %s alike', async (compute) => {
    const config = sampleConfig('Qwen3ForCausalLM');
    const { graph } = await buildModel(config, await sampleTensors(config));
    const quantized = applyQuantization(graph, { quantization: 'wint8' }, { compute, kv: 'bfloat16' });
    const kinds = ['PagedAttention', 'QuantLinear'];
    for (const kind of kinds) {
      const nodes = quantized.graph.nodes.filter(({ opType }) => opType === kind);
      expect(nodes.length).toBeGreaterThan(0);
      const chosen = new Set(nodes.map(({ attributes }) => attributes['compute']?.value));
      expect([...chosen]).toEqual([compute]);
    }
  });
});
