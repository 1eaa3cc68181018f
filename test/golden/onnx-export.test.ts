import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { openOnnx } from '../../src/convert/onnx/open-onnx.js';
import { parseModel } from '../../src/graph/onnx.js';
import { openCheckpoint } from '../../src/hub/checkpoint.js';
import { locateModel } from '../../src/hub/locate.js';
import { buildModel } from '../../src/models/build-model.js';
import { loadRuntime } from '../../src/runtime/load-addon.js';
import { convertFixture } from '../helpers/convert-fixture.js';
import {
  blockRange,
  fixtureFolder,
  loadFixture,
  maxAbsDifference,
  readFloatTensors,
  readGolden,
  runStep,
} from '../helpers/fixture-model.js';
import { PROMPT_BLOCKS, readReference } from '../helpers/golden-prompts.js';
import { createTempDir } from '../helpers/temp-dir.js';

const FIXTURES = ['llama', 'llama_tied', 'mistral', 'qwen2', 'qwen3'];
/** The longest prompts have logits for their last positions only. */
const PROMPTS = [1, 2, 3];

async function exportFixture(name: string, quantization: string): Promise<string> {
  const { output } = await convertFixture(name, await createTempDir(), quantization, { format: 'onnx' });
  return output;
}

async function open(name: string, dir: string): ReturnType<typeof openOnnx> {
  const checkpoint = await openCheckpoint(await locateModel(fixtureFolder(name)));
  const { info } = await buildModel(checkpoint.config, checkpoint.tensors);
  return openOnnx(dir, info, { runtime: loadRuntime(), threads: 2 });
}

function cosine(a: Float32Array, b: Float32Array): number {
  const dot = (x: Float32Array, y: Float32Array): number =>
    x.reduce((sum, v, i) => sum + v * (y[i] ?? NaN), 0);
  return dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
}

describe.each(FIXTURES)('%s as a model of standard operators', (name) => {
  const golden = readGolden(name);

  it('computes the reference logits unquantized', async () => {
    const dir = await exportFixture(name, 'none');
    const { nodes } = parseModel(readFileSync(path.join(dir, 'model.onnx')), { dir });
    expect(new Set(nodes.map(({ domain }) => domain))).toEqual(new Set(['', 'com.microsoft']));
    const reference = await readReference(name);
    const model = await open(name, dir);
    for (const index of PROMPTS) {
      const { ids, logit_positions: rows } = golden.prompts[index] ?? { ids: [], logit_positions: [] };
      const logits = await model.logits(ids);
      const { vocab_size: width } = golden;
      const picked = Float32Array.from(
        rows.flatMap((row) => [...logits.subarray(row * width, (row + 1) * width)]),
      );
      const expected = reference.get(`logits.${index}`) ?? new Float32Array();
      expect(maxAbsDifference(picked, expected), `prompt ${index}`).toBeLessThanOrEqual(
        golden.tolerance.atol_float32,
      );
    }
    await model.close();
  });

  it.each([
    ['wint8', 'wint8'],
    ['wint4', 'wint4'],
    ['wint4:g128', 'wint4_g128'],
  ])('computes the reference logits of %s', async (scheme, key) => {
    const file = path.join(fixtureFolder(name), 'golden_weight_only.safetensors');
    const reference = await readFloatTensors(file);
    const model = await open(name, await exportFixture(name, scheme));
    for (const index of PROMPTS) {
      const ids = golden.prompts[index]?.ids ?? [];
      const last = (await model.logits(ids)).slice(-golden.vocab_size);
      const expected = reference.get(`${key}.logits.${index}`) ?? new Float32Array();
      expect(maxAbsDifference(last, expected), `prompt ${index}`).toBeLessThanOrEqual(
        golden.tolerance.atol_float32,
      );
    }
    await model.close();
  });

  it.each(['block_wise_fp8', 'fp8_per_channel', 'fp8_per_tensor', 'w8a8', 'w4a8:g32'])(
    'rounds inputs and weights as %s does',
    async (scheme) => {
      const online = await loadFixture(name, { quantization: scheme });
      const model = await open(name, await exportFixture(name, scheme));
      const ids = golden.prompts[2]?.ids ?? [];
      const chunk = { ids, start: 0, blocks: blockRange(0, PROMPT_BLOCKS), rows: ids.map((_, row) => row) };
      const rows = await runStep(online, [chunk]);
      await online.runner.close();
      const logits = await model.logits(ids);
      for (const [row, expected] of rows.entries()) {
        const { vocab_size: width } = golden;
        // One input on the other side of a tie moves later logits visibly; wrong scales or codes move all of them.
        expect(cosine(logits.subarray(row * width, (row + 1) * width), expected)).toBeGreaterThan(0.98);
      }
      await model.close();
    },
  );
});

describe('fdq convert --format onnx', () => {
  it('describes the model to onnxruntime-genai and takes the tokenizer along', async () => {
    const dir = await exportFixture('qwen3', 'wint4:g32');
    const config = JSON.parse(readFileSync(path.join(dir, 'genai_config.json'), 'utf8')) as {
      model: { type: string; vocab_size: number; decoder: { num_hidden_layers: number } };
    };
    expect(config.model).toMatchObject({ type: 'qwen3', decoder: { num_hidden_layers: 2 } });
    expect(config.model.vocab_size).toBe(readGolden('qwen3').vocab_size);
    expect(existsSync(path.join(dir, 'tokenizer.json'))).toBe(true);
  });

  it('proves what it wrote with --verify', async () => {
    const report = await convertFixture('llama', await createTempDir(), 'wint8', {
      format: 'onnx',
      verify: true,
    });
    expect(JSON.stringify(report)).toContain('cosine of at least 1.0');
  });

  it.each(['wnf4', 'mxfp4', 'nvfp4'])('refuses %s by name before it writes', async (scheme) => {
    const folder = await createTempDir();
    await expect(convertFixture('qwen3', folder, scheme, { format: 'onnx' })).rejects.toMatchObject({
      code: 'unsupported_model',
    });
    expect(existsSync(path.join(folder, 'out'))).toBe(false);
  });
});
