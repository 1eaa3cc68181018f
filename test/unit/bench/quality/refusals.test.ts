import { readdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { measureQuality } from '../../../../src/bench/quality/measure-quality.js';
import type { QualityOptions } from '../../../../src/bench/quality/options.js';
import { groupScenarios, planScenarios } from '../../../../src/bench/quality/plan-models.js';
import { locateModel } from '../../../../src/hub/locate.js';
import { ROOT } from '../../../helpers/cli.js';
import { convertFolder } from '../../../helpers/convert-fixture.js';
import { DEMO, DEMO_QUALITY, DEMO_TEXT, measureDemo } from '../../../helpers/demo-model.js';
import { fixtureFolder } from '../../../helpers/fixture-model.js';
import { createTempDir } from '../../../helpers/temp-dir.js';

const OTHER = fixtureFolder('llama');
const GIB = 1024 ** 3;

describe('before a weight is read, fdq bench quality refuses', () => {
  it.each([
    ['an unknown scheme', { schemes: [{ quantization: 'wint3' }] }, 'wint3'],
    ['a window longer than the model', { windows: { window: 4096, stride: 4096 } }, '--window to be at most'],
    [
      'answers longer than the model',
      { prompts: path.join(DEMO, 'eval.jsonl'), maxTokens: 4096 },
      'in line 1',
    ],
    ['a reference of another vocabulary', { reference: OTHER }, 'one vocabulary'],
    [
      'more logits than may be kept',
      { maxReferenceBytes: 1e6, referenceLogits: path.join(ROOT, 'no-such-logits') },
      '230830080',
    ],
  ] as readonly (readonly [string, Partial<QualityOptions>, string])[])('%s', async (_, options, message) => {
    await expect(measureDemo(options)).rejects.toMatchObject({
      code: expect.stringMatching(/^(usage|unknown_scheme)$/) as string,
      message: expect.stringContaining(message) as string,
    });
  });

  it('a place for logits that cannot be written to, and locates no model', async () => {
    const dir = await createTempDir();
    const file = path.join(dir, 'file');
    await writeFile(file, '');
    for (const referenceLogits of [dir, path.join(file, 'logits'), '/proc/none/logits']) {
      await expect(measureDemo({ model: '/no/such/model', referenceLogits })).rejects.toMatchObject({
        code: 'usage',
        param: '--reference-logits',
      });
    }
    expect(await readdir(dir)).toEqual(['file']);
  });

  it('a model that brings no text, when none is named', async () => {
    const { text: _, ...options } = { ...DEMO_QUALITY, text: undefined, model: OTHER };
    await expect(measureQuality(options, { stage: () => undefined })).rejects.toThrow(
      'brings neither eval.txt nor eval.jsonl',
    );
  });

  it('a text shorter than a window', async () => {
    const text = path.join(await createTempDir(), 'short.txt');
    await writeFile(text, 'A few words.');
    await expect(measureDemo({ text })).rejects.toThrow('at least one window of 256 tokens');
  });

  it('to compare with what is quantized already', async () => {
    const folder = await createTempDir();
    await convertFolder(DEMO, folder, 'wint8');
    await expect(measureDemo({ model: path.join(folder, 'out') })).rejects.toThrow('quantized already');
  });

  it('scenarios that its observer refuses', async () => {
    const stages: string[] = [];
    const measuring = measureQuality(
      { ...DEMO_QUALITY, text: DEMO_TEXT },
      {
        stage: (name) => void stages.push(name),
        planned: (names) => {
          throw new Error(names.join());
        },
      },
    );
    await expect(measuring).rejects.toThrow('none kv=float32 dtype=float32');
    expect(stages).toEqual(['plan']);
  });
});

describe('models that do not all fit into memory', () => {
  const plan = async (): ReturnType<typeof planScenarios> => {
    const schemes = ['none', 'wint8', 'wint4'].map((quantization) => ({ quantization }));
    const located = await locateModel(DEMO);
    return planScenarios({ ...DEMO_QUALITY, schemes }, located, () => undefined);
  };
  const sizes = async (availableBytes: number): Promise<readonly number[]> => {
    const scenarios = await plan();
    const options = { numBlocks: 64, utilization: 1, availableBytes };
    return groupScenarios(scenarios, scenarios[0] ?? null, options).map((group) => group.length);
  };

  it('are loaded in groups, each beside the reference', async () => {
    expect(await sizes(16 * GIB)).toEqual([3]);
    expect(await sizes(1.5 * GIB)).toEqual([2, 1]);
    expect(await sizes(1 * GIB)).toEqual([1, 1, 1]);
  });

  it('are refused when not one fits, with the way out', async () => {
    await expect(sizes(0.6 * GIB)).rejects.toMatchObject({
      code: 'out_of_memory',
      suggestions: [expect.stringContaining('--reference-logits') as string, expect.anything()],
    });
  });
});
