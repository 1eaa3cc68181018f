import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { LoadedModel } from '../../src/load/load-model.js';
import { availableIsas } from '../helpers/addon.js';
import {
  blockRange,
  fixtureFolder,
  loadFixture,
  maxAbsDifference,
  readFloatTensors,
  readGolden,
  runStep,
} from '../helpers/fixture-model.js';
import {
  continueGreedily,
  expectReferenceLogits,
  lastLogits,
  logitsAt,
  PROMPT_BLOCKS,
  readReference,
} from '../helpers/golden-prompts.js';
import { loadWeightOnly } from '../helpers/weight-only.js';

const FIXTURES = ['llama', 'llama_tied', 'mistral', 'qwen2', 'qwen3'];
const BLOCK_SIZE = 16;

describe.each(FIXTURES)('%s computes the reference logits', (name) => {
  const golden = readGolden(name);
  let model: LoadedModel;
  let reference: ReadonlyMap<string, Float32Array>;

  beforeAll(async () => {
    model = await loadFixture(name);
    reference = await readReference(name);
  });
  afterAll(() => model.runner.close());

  const lastRow = (ids: readonly number[]): readonly number[] => [ids.length - 1];

  it.each(golden.prompts.map((prompt) => [prompt.index, prompt] as const))(
    'prompt %i: logits within tolerance, greedy continuation equal',
    async (_, prompt) => {
      const tolerance = golden.tolerance.atol_float32;
      await expectReferenceLogits(model, prompt, { reference, tolerance });
      const greedy = await continueGreedily(model, prompt.ids, prompt.greedy.length);
      expect(greedy).toEqual(prompt.greedy);
    },
  );

  it('gives every prompt the same bits alone and packed with the others', async () => {
    const chunks = golden.prompts.map((prompt, i) => ({
      ids: prompt.ids,
      start: 0,
      blocks: blockRange(i * PROMPT_BLOCKS, PROMPT_BLOCKS),
      rows: lastRow(prompt.ids),
    }));
    const together = await runStep(model, chunks);
    for (const [i, chunk] of chunks.entries()) {
      const [alone] = await runStep(model, [chunk]);
      expect(together[i]).toEqual(alone);
    }
  });

  it.each(golden.prompts.map((prompt) => [prompt.index, prompt.ids] as const))(
    'prompt %i: gives the same bits at every chunk size of a chunked prefill',
    async (_, ids) => {
      const blocks = blockRange(0, PROMPT_BLOCKS);
      const [whole] = await runStep(model, [{ ids, start: 0, blocks, rows: lastRow(ids) }]);
      for (let size = 1; size < ids.length; size++) {
        let last: Float32Array | undefined;
        for (let start = 0; start < ids.length; start += size) {
          const chunk = ids.slice(start, start + size);
          [last] = await runStep(model, [{ ids: chunk, start, blocks, rows: lastRow(chunk) }]);
        }
        expect(last, `chunk size ${size}`).toEqual(whole);
      }
    },
  );

  it('decodes several sequences in one step with the bits each has alone', async () => {
    const prompts = golden.prompts.filter((prompt) => prompt.ids.length > 1);
    const decode = (
      i: number,
    ): { ids: number[]; start: number; blocks: readonly number[]; rows: number[] } => ({
      ids: [prompts[i]?.greedy[0] ?? 0],
      start: prompts[i]?.ids.length ?? 0,
      blocks: blockRange(i * PROMPT_BLOCKS, PROMPT_BLOCKS),
      rows: [0],
    });
    for (const [i, prompt] of prompts.entries()) {
      await runStep(model, [
        { ids: prompt.ids, start: 0, blocks: blockRange(i * PROMPT_BLOCKS, PROMPT_BLOCKS), rows: [0] },
      ]);
    }
    const together = await runStep(
      model,
      prompts.map((_, i) => decode(i)),
    );
    for (const i of prompts.keys()) {
      const [alone] = await runStep(model, [decode(i)]);
      expect(together[i]).toEqual(alone);
    }
  });

  it('gives the same bits when a prefix is reused from another sequence', async () => {
    const ids = golden.prompts[2]?.ids ?? [];
    const [whole] = await runStep(model, [
      { ids, start: 0, blocks: blockRange(0, PROMPT_BLOCKS), rows: lastRow(ids) },
    ]);
    const shared = Math.floor((ids.length - 1) / BLOCK_SIZE);
    const blocks = [...blockRange(0, shared), ...blockRange(50, PROMPT_BLOCKS - shared)];
    const rest = ids.slice(shared * BLOCK_SIZE);
    const [reused] = await runStep(model, [
      { ids: rest, start: shared * BLOCK_SIZE, blocks, rows: lastRow(rest) },
    ]);
    expect(reused).toEqual(whole);
  });
});

describe.each(FIXTURES)('%s on every instruction set of this machine', (name) => {
  const golden = readGolden(name);

  it.each(availableIsas())('%s computes the reference logits', async (isa) => {
    const reference = await readReference(name);
    const exact = await loadFixture(name, { isa });
    const rounding = await loadFixture(name, { isa, dtype: 'bfloat16' });
    for (const { ids, index, logit_positions: rows } of golden.prompts) {
      const expected = reference.get(`logits.${index}`) ?? new Float32Array();
      const difference = async (model: LoadedModel): Promise<number> =>
        maxAbsDifference(await logitsAt(model, ids, rows), expected);
      const tolerance = golden.tolerance.atol_float32;
      expect(await difference(exact), `prompt ${index}`).toBeLessThanOrEqual(tolerance);
      // Rounding the inputs of linear layers may cost no more than computing everything in bfloat16 does.
      const rounded = await difference(rounding);
      const bound = golden.max_abs_difference_of_logits_when_computed_in.bfloat16;
      expect(rounded, `prompt ${index}`).toBeLessThanOrEqual(bound);
      expect(rounded).toBeGreaterThan(0);
    }
    await Promise.all([exact.runner.close(), rounding.runner.close()]);
  });
});

describe.each(FIXTURES)('%s computes the reference logits of quantized weights', (name) => {
  const golden = readGolden(name);

  it.each([
    ['wint8', 'wint8'],
    ['wint4', 'wint4'],
    ['wint4:g128', 'wint4_g128'],
    ['block_wise_fp8', 'fp8_block'],
  ])('%s', async (scheme, key) => {
    const reference = await readFloatTensors(
      path.join(fixtureFolder(name), 'golden_weight_only.safetensors'),
    );
    const model = await loadWeightOnly(fixtureFolder(name), { quantization: scheme });
    for (const { ids, index } of golden.prompts) {
      const expected = reference.get(`${key}.logits.${index}`) ?? new Float32Array();
      const difference = maxAbsDifference(await lastLogits(model, ids), expected);
      expect(difference).toBeLessThanOrEqual(golden.tolerance.atol_float32);
    }
    await model.runner.close();
  });
});
