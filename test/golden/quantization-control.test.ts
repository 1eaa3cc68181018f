import { describe, expect, it } from 'vitest';
import { expectDequantized, loadOpen, schemesOf } from '../helpers/dequantized-model.js';
import { blockRange, fixtureFolder, runStep } from '../helpers/fixture-model.js';

describe('a model computes with the schemes its plan gives', () => {
  it('to single layers, members of fused ones and the head', async () => {
    const model = await expectDequantized('llama', {
      quantization: 'W8A16',
      quantizationConfig: {
        targets: {
          're:.*\\.[01]\\..*[qv]_proj': 'wint4:g32',
          'model.layers.1.mlp.up_proj': 'wint4',
          'model.layers.2.*': 'none',
        },
        modules_to_not_convert: ['layers.0.mlp'],
        quantize_lm_head: true,
      },
    });
    expect(model.scheme).toBe('mix_quant');
    expect(schemesOf(model)).toMatchObject({
      '0.q_proj': 'wint4:g32',
      '0.k_proj': 'wint8',
      '0.v_proj': 'wint4:g32',
      '0.o_proj': 'wint8',
      '0.gate_proj': 'none',
      '0.down_proj': 'none',
      '1.gate_proj': 'wint8',
      '1.up_proj': 'wint4',
      '2.q_proj': 'none',
      '2.down_proj': 'none',
      lm_head: 'wint8',
      'model.embed_tokens': 'none',
    });
  });
});

it.each([
  ['W8A16C8', 'int8'],
  ['W4A16Cfp8:g32', 'fp8'],
  ['W16A16C4', 'int4'],
  ['{"quantization": "wint8", "kv_cache_quant_type": "int8"}', 'int8'],
  ['W8A16', 'float32'],
])('%s gives the KV cache %s', async (quantization, type) => {
  const model = await loadOpen(fixtureFolder('qwen3'), { quantization });
  expect(model.arithmetic.kv).toBe(type);
  const chunk = { ids: [1, 2, 3], start: 0, blocks: blockRange(0, 1), rows: [2] };
  const [logits] = await runStep(model, [chunk]);
  expect(logits?.every(Number.isFinite)).toBe(true);
});
