import { mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import type { LoadedModel, LoadOptions } from '../../src/load/load-model.js';
import { argMax, blockRange, loadFolder, maxAbsDifference, runStep } from '../helpers/fixture-model.js';
import { cosine, withoutRounding } from '../helpers/stored-model.js';
import { STORED_CASES } from '../helpers/stored-cases.js';
import { createRandom } from '../helpers/stored-formats.js';
import type { Random, StoredCase } from '../helpers/stored-formats.js';
import { createTempDir } from '../helpers/temp-dir.js';
import { writeSafetensors } from '../helpers/write-safetensors.js';
import type { TensorSpec } from '../helpers/write-safetensors.js';

/** Of the largest logit, under float32: sums in another order, as far off as the golden logits allow. */
const RELATIVE_TOLERANCE = 5e-5;
/** Between logits with and without rounded inputs: rounding happens, and random weights make much of it. */
const MIN_COSINE = 0.9;

const VOCAB = 96;
const CONFIG = {
  architectures: ['LlamaForCausalLM'],
  model_type: 'llama',
  vocab_size: VOCAB,
  hidden_size: 128,
  intermediate_size: 320,
  num_hidden_layers: 1,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  max_position_embeddings: 64,
  rms_norm_eps: 1e-5,
  tie_word_embeddings: false,
};
const LINEAR: readonly (readonly [name: string, n: number, k: number])[] = [
  ['self_attn.q_proj', 128, 128],
  ['self_attn.k_proj', 64, 128],
  ['self_attn.v_proj', 64, 128],
  ['self_attn.o_proj', 128, 128],
  ['mlp.gate_proj', 320, 128],
  ['mlp.up_proj', 320, 128],
  ['mlp.down_proj', 128, 320],
];
const PROMPT = Array.from({ length: 20 }, (_, i) => (i * 37 + 5) % VOCAB);

function float32(shape: readonly number[], valueAt: (at: number) => number): TensorSpec {
  const count = shape.reduce((product, size) => product * size, 1);
  const values = Float32Array.from({ length: count }, (_, at) => valueAt(at));
  return { dtype: 'F32', shape, data: new Uint8Array(values.buffer) };
}

function otherTensors(random: Random): Record<string, TensorSpec> {
  const around = (): number => random() * 2 - 1;
  const norm = (): TensorSpec => float32([128], () => 0.75 + random() / 2);
  return {
    'model.embed_tokens.weight': float32([VOCAB, 128], around),
    'model.layers.0.input_layernorm.weight': norm(),
    'model.layers.0.post_attention_layernorm.weight': norm(),
    'model.norm.weight': norm(),
    'lm_head.weight': float32([VOCAB, 128], around),
  };
}

/** The same model twice: as the format stores it, and with the float32 weights that stands for. */
async function writeModels(
  stored: StoredCase,
): Promise<{ readonly quantized: string; readonly float: string }> {
  const random = createRandom(11);
  const others = otherTensors(random);
  const quantized: Record<string, TensorSpec> = { ...others };
  const float: Record<string, TensorSpec> = { ...others };
  for (const [name, n, k] of LINEAR) {
    const { tensors, weights } = stored.write(n, k, random);
    const module = `model.layers.0.${name}`;
    for (const [suffix, spec] of Object.entries(tensors)) quantized[`${module}.${suffix}`] = spec;
    float[`${module}.weight`] = float32([n, k], (at) => weights[at] ?? NaN);
  }
  const root = await createTempDir();
  const folders = { quantized: path.join(root, 'quantized'), float: path.join(root, 'float') };
  for (const folder of Object.values(folders)) await mkdir(folder);
  await writeSafetensors(path.join(folders.quantized, 'model.safetensors'), quantized);
  await writeSafetensors(path.join(folders.float, 'model.safetensors'), float);
  const config = stored.file === undefined ? { ...CONFIG, quantization_config: stored.config } : CONFIG;
  await writeFile(path.join(folders.quantized, 'config.json'), JSON.stringify(config));
  await writeFile(path.join(folders.float, 'config.json'), JSON.stringify(CONFIG));
  if (stored.file !== undefined) {
    await writeFile(path.join(folders.quantized, stored.file), JSON.stringify(stored.config));
  }
  return folders;
}

const MEMORY = { utilization: 0.9, numBlocks: 8, maxBatchedTokens: 64, maxModelLen: 64 };

async function allLogits(folder: string, options: Partial<LoadOptions> = {}): Promise<Float32Array> {
  const model: LoadedModel = await loadFolder(folder, { memory: MEMORY, ...options });
  const chunk = { ids: PROMPT, start: 0, blocks: blockRange(0, 2), rows: PROMPT.map((_, i) => i) };
  const rows = await runStep(model, [chunk]);
  await model.runner.close();
  return Float32Array.from(rows.flatMap((row) => [...row]));
}

describe.each(STORED_CASES.map((stored) => [stored.name, stored] as const))('%s', (_, stored) => {
  it('serves the logits of the weights it stands for', async () => {
    const folders = await writeModels(stored);
    const expected = await allLogits(folders.float);
    const largest = Math.abs(expected[argMax(expected.map(Math.abs))] ?? NaN);
    const actual = await allLogits(folders.quantized, { chooseQuantization: withoutRounding });
    expect(maxAbsDifference(actual, expected)).toBeLessThanOrEqual(RELATIVE_TOLERANCE * largest);
    if (stored.activation === 'none') return;
    const rounded = await allLogits(folders.quantized);
    expect(maxAbsDifference(rounded, expected)).toBeGreaterThan(RELATIVE_TOLERANCE * largest);
    // The static scale is made up: most inputs saturate.
    if (!stored.activation.endsWith('static')) expect(cosine(rounded, expected)).toBeGreaterThan(MIN_COSINE);
  });
});
