import path from 'node:path';
import { describe, expect, it } from 'vitest';
import type { LoadedModel } from '../../src/load/load-model.js';
import { convertFixture } from '../helpers/convert-fixture.js';
import {
  fixtureFolder,
  loadFixture,
  loadFolder,
  maxAbsDifference,
  readFloatTensors,
  readGolden,
} from '../helpers/fixture-model.js';
import { lastLogits } from '../helpers/golden-prompts.js';
import { createTempDir } from '../helpers/temp-dir.js';

// nvfp4-expected.py made the expected logits, with one tensor scale for q, k and v, and one for gate and up.
// Columns that are no multiple of 16 have no layout in safetensors.
describe.each([
  ['qwen2', ['fdq']],
  ['qwen3', ['fdq', 'safetensors']],
] as const)('%s in nvfp4', (name, formats) => {
  const golden = readGolden(name);

  /** Largest difference from the reference over all prompts. */
  async function errorOf(model: LoadedModel): Promise<number> {
    const reference = await readFloatTensors(path.join(fixtureFolder(name), 'golden_nvfp4.safetensors'));
    const differences: number[] = [];
    for (const { ids, index } of golden.prompts) {
      const expected = reference.get(`logits.${index}`) ?? new Float32Array();
      differences.push(maxAbsDifference(await lastLogits(model, ids), expected));
    }
    await model.runner.close();
    return Math.max(...differences);
  }

  it('computes the reference logits, quantized while loading', async () => {
    const model = await loadFixture(name, { quantization: 'nvfp4' });
    expect(await errorOf(model)).toBeLessThanOrEqual(golden.tolerance.atol_float32);
  });

  it.each(formats)('computes them from --format %s', async (format) => {
    const dir = await createTempDir();
    await convertFixture(name, dir, 'nvfp4', { format });
    const model = await loadFolder(path.join(dir, 'out'));
    expect(await errorOf(model)).toBeLessThanOrEqual(golden.tolerance.atol_float32);
  });
});
