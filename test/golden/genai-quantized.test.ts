import { open, readFile, truncate } from 'node:fs/promises';
import path from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { chooseSchemes } from '../../src/choose-schemes.js';
import { parseModel } from '../../src/graph/onnx.js';
import { loadModel, type LoadedModel } from '../../src/load/load-model.js';
import { convertFixture } from '../helpers/convert-fixture.js';
import {
  fixtureOptions,
  loadFixture,
  loadFolder,
  maxAbsDifference,
  readGolden,
} from '../helpers/fixture-model.js';
import { expectReferenceLogits, lastLogitsOfPrompts, readReference } from '../helpers/golden-prompts.js';
import { writeGenaiModel } from '../helpers/genai-model.js';
import { createTempDir } from '../helpers/temp-dir.js';

const FIXTURES = ['llama', 'llama_tied', 'mistral', 'qwen2', 'qwen3'];

function closing(model: LoadedModel): LoadedModel {
  onTestFinished(() => model.runner.close());
  return model;
}

describe.each(['llama', 'qwen3'])('an ONNX decoder of %s, quantized while it is loaded', (name) => {
  it.each([['wint8'], ['wint4:g128'], ['wnf4']])(
    'gives the logits of the checkpoint in %s',
    async (quantization) => {
      const dir = await createTempDir();
      await writeGenaiModel(name, dir);
      const onnx = closing(await loadFolder(dir, { quantization }));
      const checkpoint = closing(await loadFixture(name, { quantization }));
      const difference = maxAbsDifference(
        await lastLogitsOfPrompts(onnx, name),
        await lastLogitsOfPrompts(checkpoint, name),
      );
      expect(difference).toBeLessThanOrEqual(readGolden(name).tolerance.atol_float32);
      expect(onnx.scheme).toBe(quantization);
    },
  );

  it('quantizes by the names of the nodes', async () => {
    const dir = await createTempDir();
    await writeGenaiModel(name, dir);
    const config = { quantization: 'wint8', ignore: ['re:.*o_proj'] };
    const { layers } = closing(await loadFolder(dir, { quantizationConfig: config }));
    const schemes = new Map(layers.map((layer) => [layer.name, layer.scheme]));
    expect(schemes.get('model.layers.0.attn.q_proj')).toBe('wint8');
    expect(schemes.get('model.layers.0.attn.o_proj')).toBe('none');
    expect(schemes.get('model.layers.1.mlp.down_proj')).toBe('wint8');
    expect(schemes.get('lm_head')).toBe('none');
  });
});

describe.each(FIXTURES)('what `fdq convert --format onnx` writes of %s', (name) => {
  it('is served with the logits of the checkpoint', async () => {
    const dir = await createTempDir();
    await convertFixture(name, dir, 'none', { format: 'onnx' });
    const model = closing(await loadFolder(path.join(dir, 'out')));
    const reference = await readReference(name);
    const golden = readGolden(name);
    const tolerance = golden.tolerance.atol_float32;
    for (const prompt of golden.prompts) await expectReferenceLogits(model, prompt, { reference, tolerance });
  });

  it('keeps its MatMulNBits, reports them as stored and refuses other schemes', async () => {
    const dir = await createTempDir();
    await convertFixture(name, dir, 'wint4:g128', { format: 'onnx' });
    const out = path.join(dir, 'out');
    const model = closing(await loadFolder(out));
    const checkpoint = closing(await loadFixture(name, { quantization: 'wint4:g128' }));
    const difference = maxAbsDifference(
      await lastLogitsOfPrompts(model, name),
      await lastLogitsOfPrompts(checkpoint, name),
    );
    expect(difference).toBeLessThanOrEqual(readGolden(name).tolerance.atol_float32);
    expect(model.scheme).toBe('wint4:g128');
    const stored = model.layers.filter(({ reason }) => reason === 'stored in the ONNX model as MatMulNBits');
    expect(stored.map((layer) => layer.name)).toContain('model.layers.0.mlp.down_proj');
    await expect(loadFolder(out, { quantization: 'wint8' })).rejects.toMatchObject({
      code: 'already_quantized',
      message: expect.stringContaining('stored as wint4:g128') as unknown,
    });
  });
});

describe('an ONNX decoder is refused', () => {
  it.each(['w8a8', 'w4a8:g32', 'block_wise_fp8', 'fp8_per_channel'])(
    'when its layers round their inputs as %s does, with what to do instead',
    async (scheme) => {
      const dir = await createTempDir();
      await convertFixture('llama', dir, scheme, { format: 'onnx' });
      await expect(loadFolder(path.join(dir, 'out'))).rejects.toMatchObject({
        code: 'unsupported_model',
        message: expect.stringContaining('rounds the input of a layer to 8 bits') as unknown,
        suggestions: expect.arrayContaining([expect.stringContaining('--format fdq')]) as unknown,
      });
    },
  );

  it('when its weights are shorter than the graph says', async () => {
    const dir = await createTempDir();
    await writeGenaiModel('llama', dir);
    await truncate(path.join(dir, 'model.onnx.data'), 1000);
    await expect(loadFolder(dir)).rejects.toMatchObject({
      code: 'invalid_checkpoint',
      message: expect.stringContaining('model.onnx.data", which has 1000') as unknown,
    });
  });

  it('when a weight to quantize holds a NaN, named by its row and column', async () => {
    const dir = await createTempDir();
    await writeGenaiModel('llama', dir, { packed: true });
    const graph = parseModel(await readFile(path.join(dir, 'model.onnx')), { dir });
    const weight = graph.initializers.get('model.layers.1.mlp.up_proj.MatMul.weight');
    if (weight?.data.kind !== 'external') throw new Error('the weight is external');
    const [, n = 0] = weight.shape;
    const file = await open(weight.data.file, 'r+');
    const nan = new Uint8Array(Float32Array.of(NaN).buffer);
    await file.write(nan, 0, 4, weight.data.offset + 4 * (5 * n + 7));
    await file.close();
    await expect(loadFolder(dir, { quantization: 'wint8' })).rejects.toMatchObject({
      code: 'non_finite_weight',
      message: 'model.layers.1.mlp.up_proj.weight holds a NaN or infinity at row 7, column 5.',
    });
  });
});

it('is served in schemes chosen by measuring', async () => {
  const dir = await createTempDir();
  await writeGenaiModel('llama', dir, { packed: true });
  const choose = (maxError: number) =>
    chooseSchemes({
      auto: { maxError },
      flags: {},
      threads: 1,
      signal: new AbortController().signal,
      onProgress: () => undefined,
      info: () => undefined,
    });
  const loaded = async (maxError: number) =>
    closing(await loadFolder(dir, { chooseQuantization: choose(maxError) }));
  const [fine, coarse] = [await loaded(0.01), await loaded(0.2)];
  const schemes = (model: typeof fine) => new Set(model.layers.map(({ scheme }) => scheme));
  expect([...schemes(fine)].some((scheme) => scheme.startsWith('wint8'))).toBe(true);
  expect([...schemes(coarse)].some((scheme) => scheme.startsWith('wint4'))).toBe(true);
  expect(coarse.weightBytes).toBeLessThan(fine.weightBytes);
});

it('warns of a window that only genai_config.json has', async () => {
  const dir = await createTempDir();
  await writeGenaiModel('llama', dir, { decoder: { sliding_window: { window_size: 32 } } });
  const warnings: string[] = [];
  const observer = { phase: () => undefined, warn: (line: string) => warnings.push(line) };
  closing(await loadModel(fixtureOptions(dir), observer));
  expect(warnings.join()).toContain('names a sliding window of 32 that no attention of the graph has');
});
