import path from 'node:path';
import { describe, expect, it } from 'vitest';
import type { LoadedModel, LoadOptions } from '../../src/load/load-model.js';
import { loadFixture, readGolden } from '../helpers/fixture-model.js';
import {
  continueGreedily,
  expectReferenceLogits,
  lastLogits,
  readReference,
} from '../helpers/golden-prompts.js';
import { cosine, withoutRounding } from '../helpers/stored-model.js';

/** Least cosine of logits whose inputs were rounded: one rounding that falls the other way moves them visibly. */
const MIN_COSINE = 0.995;
/** Mean distance from them, in that between rounded and unrounded logits. */
const MAX_MEAN_RATIO = 0.35;

const FOLDERS: Readonly<Record<string, string>> = {
  qwen3_fp8_block: 'block_wise_fp8',
  llama_fp8_block_bf16_scales: 'block_wise_fp8',
  qwen3_gptq_g128: 'wint4:g128',
  llama_gptq_g32_asym_actorder: 'wint4:g32:asymmetric:act-order',
  qwen3_awq_g128: 'wint4:g128:asymmetric',
  qwen3_ct_w4a16_g128: 'wint4:g128',
  llama_ct_fp8_dynamic: 'fp8_per_channel',
  llama_ct_w8a8_int8: 'w8a8',
};
const ROUNDED = [
  'qwen3_fp8_block',
  'llama_fp8_block_bf16_scales',
  'llama_ct_fp8_dynamic',
  'llama_ct_w8a8_int8',
];

function offline(name: string): string {
  return path.join('..', 'offline', name);
}

function load(name: string, options: Partial<LoadOptions> = {}): Promise<LoadedModel> {
  return loadFixture(offline(name), options);
}

function meanDistance(a: Float32Array, b: Float32Array): number {
  return a.reduce((sum, value, i) => sum + Math.abs(value - (b[i] ?? NaN)), 0) / a.length;
}

describe.each(Object.entries(FOLDERS))('%s', (name, scheme) => {
  const golden = readGolden(offline(name));

  it('computes the logits of its dequantized weights and continues as they do', async () => {
    const reference = await readReference(offline(name));
    const tolerance = golden.tolerance.atol_float32;
    const model = await load(name, { chooseQuantization: withoutRounding });
    for (const prompt of golden.prompts) {
      await expectReferenceLogits(model, prompt, { reference, tolerance });
      const greedy = await continueGreedily(model, prompt.ids, prompt.greedy.length);
      expect(greedy).toEqual(prompt.greedy);
    }
    await model.runner.close();
  });

  it(`says that its layers are ${scheme}, and which it left as they are`, async () => {
    const model = await load(name);
    const linear = model.layers.filter((layer) => layer.name.endsWith('_proj'));
    const kept = linear.filter((layer) => layer.scheme === 'none').map((layer) => layer.name);
    const expected =
      name === 'llama_fp8_block_bf16_scales'
        ? ['model.layers.0.mlp.down_proj', 'model.layers.2.self_attn.o_proj']
        : [];
    expect(kept).toEqual(expected);
    expect(new Set(linear.map((layer) => layer.scheme))).toEqual(
      new Set(expected.length > 0 ? [scheme, 'none'] : [scheme]),
    );
    for (const layer of linear) {
      if (layer.scheme !== 'none') expect(layer.reason).toMatch(/stored as .* by the checkpoint/);
    }
    await model.runner.close();
  });
});

describe.each(ROUNDED)('%s', (name) => {
  const golden = readGolden(offline(name));

  it('rounds the inputs of its layers as the checkpoint asks', async () => {
    const reference = await readReference(offline(name));
    const model = await load(name);
    for (const { index, ids } of golden.prompts) {
      const actual = await lastLogits(model, ids);
      const rounded = reference.get(`actquant.logits.${index}`) ?? new Float32Array();
      const unrounded = (reference.get(`logits.${index}`) ?? new Float32Array()).slice(-rounded.length);
      expect(cosine(actual, rounded)).toBeGreaterThan(MIN_COSINE);
      const ratio = meanDistance(actual, rounded) / meanDistance(unrounded, rounded);
      expect(ratio).toBeLessThan(MAX_MEAN_RATIO);
    }
    await model.runner.close();
  });
});

describe('quantizing anew', () => {
  it('starts from the weights that the stored codes stand for', async () => {
    const [, , prompt] = readGolden(offline('llama_gptq_g32_asym_actorder')).prompts;
    const name = 'llama_gptq_g32_asym_actorder';
    const stored = await load(name);
    const anew = await load(name, { quantization: 'wint8', requantize: true });
    expect(anew.layers.filter(({ scheme }) => scheme === 'wint8')).toHaveLength(21);
    const ids = prompt?.ids ?? [];
    // Eight bits hold four of any group; what differs is that a scale is then a row's.
    expect(cosine(await lastLogits(anew, ids), await lastLogits(stored, ids))).toBeGreaterThan(MIN_COSINE);
    await stored.runner.close();
    await anew.runner.close();
  });

  it('leaves no layer as it is stored', async () => {
    const config = { targets: { 're:.*down_proj': 'none' } };
    const options = { quantization: 'wint8', quantizationConfig: config, requantize: true };
    await expect(load('qwen3_awq_g128', options)).rejects.toMatchObject({
      code: 'unsupported_model',
      param: 'model.layers.0.mlp.down_proj.weight',
    });
  });
});
