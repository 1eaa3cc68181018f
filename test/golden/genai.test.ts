import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { LoadedModel } from '../../src/load/load-model.js';
import { blockRange, loadFolder, readGolden, runStep } from '../helpers/fixture-model.js';
import {
  continueGreedily,
  expectReferenceLogits,
  PROMPT_BLOCKS,
  readReference,
} from '../helpers/golden-prompts.js';
import { writeGenaiModel, type GenaiVariant } from '../helpers/genai-model.js';

const VARIANTS: readonly (readonly [fixture: string, how: string, variant: GenaiVariant])[] = [
  ['llama', 'as the builder writes it', {}],
  ['llama', 'with q, k and v in one', { packed: true }],
  ['llama', 'rotated before the attention', { rotaryBefore: true }],
  ['llama_tied', 'as the builder writes it', {}],
  ['mistral', 'with a window', {}],
  ['qwen2', 'with biases', {}],
  ['qwen3', 'with norms of q and k', {}],
  ['qwen3', 'with norms of q and k, rotated before the attention', { rotaryBefore: true }],
];

describe.each(VARIANTS)('an ONNX decoder of %s %s', (name, _, variant) => {
  const golden = readGolden(name);
  let dir: string;
  let model: LoadedModel;
  let reference: ReadonlyMap<string, Float32Array>;

  beforeAll(async () => {
    dir = await mkdtemp(path.join(tmpdir(), 'fdq-test-'));
    await writeGenaiModel(name, dir, variant);
    model = await loadFolder(dir);
    reference = await readReference(name);
  });
  afterAll(async () => {
    await model.runner.close();
    await rm(dir, { recursive: true, force: true });
  });

  it.each(golden.prompts.map((prompt) => [prompt.index, prompt] as const))(
    'prompt %i: logits within tolerance, greedy continuation equal',
    async (_, prompt) => {
      const tolerance = golden.tolerance.atol_float32;
      await expectReferenceLogits(model, prompt, { reference, tolerance });
      const greedy = await continueGreedily(model, prompt.ids, prompt.greedy.length);
      expect(greedy).toEqual(prompt.greedy);
    },
  );

  it('gives the same bits in chunks, and packed with another sequence', async () => {
    const [first, second] = golden.prompts.filter(({ ids }) => ids.length > 7).map(({ ids }) => ids);
    const ids = first ?? [];
    const rows = [ids.length - 1];
    const [whole] = await runStep(model, [{ ids, start: 0, blocks: blockRange(0, PROMPT_BLOCKS), rows }]);
    const blocks = blockRange(PROMPT_BLOCKS, PROMPT_BLOCKS);
    await runStep(model, [{ ids: ids.slice(0, 3), start: 0, blocks, rows: [0] }]);
    const rest = ids.slice(3);
    const [, last] = await runStep(model, [
      { ids: second ?? [], start: 0, blocks: blockRange(2 * PROMPT_BLOCKS, PROMPT_BLOCKS), rows: [0] },
      { ids: rest, start: 3, blocks, rows: [rest.length - 1] },
    ]);
    expect(whole?.length).toBe(model.decoder.vocabSize);
    expect(last).toEqual(whole);
  });
});
