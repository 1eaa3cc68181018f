import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { convertFixture } from '../helpers/convert-fixture.js';
import {
  fixtureFolder,
  loadFolder,
  maxAbsDifference,
  readFloatTensors,
  readGolden,
} from '../helpers/fixture-model.js';
import { lastLogits } from '../helpers/golden-prompts.js';
import { createTempDir } from '../helpers/temp-dir.js';

// wint2-expected.py made the expected logits; qwen2 has ragged groups, qwen3 whole ones.
describe.each(['qwen2', 'qwen3'])('%s in wint2, converted and loaded', (name) => {
  it('computes the reference logits', async () => {
    const golden = readGolden(name);
    const dir = await createTempDir();
    await convertFixture(name, dir, 'wint2');
    const reference = await readFloatTensors(path.join(fixtureFolder(name), 'golden_wint2.safetensors'));
    const model = await loadFolder(path.join(dir, 'out'));
    for (const { ids, index } of golden.prompts) {
      const expected = reference.get(`logits.${index}`) ?? new Float32Array();
      const difference = maxAbsDifference(await lastLogits(model, ids), expected);
      expect(difference, `prompt ${index}`).toBeLessThanOrEqual(golden.tolerance.atol_float32);
    }
    await model.runner.close();
  });
});
