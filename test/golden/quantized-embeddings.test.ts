import { describe, expect, it } from 'vitest';
import { expectDequantized, loadOpen, schemesOf } from '../helpers/dequantized-model.js';
import { fixtureFolder } from '../helpers/fixture-model.js';

describe('a scheme given', () => {
  it.each(['wint8', 'wint4:g32', 'nvfp4', 'block_wise_fp8'])('to embeddings alone: %s', async (scheme) => {
    const model = await expectDequantized('llama', {
      quantizationConfig: { targets: { 'model.embed_tokens': scheme } },
    });
    expect(schemesOf(model)).toMatchObject({
      'model.embed_tokens': scheme,
      lm_head: 'none',
      '0.q_proj': 'none',
    });
  });

  it.each([{ quantizeLmHead: true }, { quantizeEmbeddings: true }])(
    'to embeddings and head that are one tensor, when %j',
    async (asked) => {
      const model = await expectDequantized('llama_tied', { quantization: 'wint8', ...asked });
      expect(schemesOf(model)).toMatchObject({ 'model.embed_tokens': 'wint8', '0.q_proj': 'wint8' });
      const plain = await loadOpen(fixtureFolder('llama_tied'), { quantization: 'wint8' });
      expect(model.weightBytes).toBeLessThan(plain.weightBytes);
    },
  );
});
