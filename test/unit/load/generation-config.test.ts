import { mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { collectEosIds, readGenerationConfig } from '../../../src/load/generation-config.js';
import { createTempDir } from '../../helpers/temp-dir.js';

const checkpoint = { generationConfig: { temperature: 0.6, top_k: 20, eos_token_id: [1, 2] } };

describe('readGenerationConfig', () => {
  it("takes the checkpoint's own, none, or a folder's, keeping the checkpoint's eos ids", async () => {
    const folder = await createTempDir();
    await writeFile(path.join(folder, 'generation_config.json'), '{"top_p": 0.5}');
    const read = (generationConfig: string, overrideGenerationConfig = {}): Promise<unknown> =>
      readGenerationConfig(checkpoint, { generationConfig, overrideGenerationConfig });
    expect(await read('auto')).toEqual(checkpoint.generationConfig);
    expect(await read('vllm', { top_k: 5 })).toEqual({ eos_token_id: [1, 2], top_k: 5 });
    expect(await read(folder)).toEqual({ eos_token_id: [1, 2], top_p: 0.5 });
    expect(await read('auto', { temperature: 0 })).toMatchObject({ temperature: 0, top_k: 20 });
  });

  it.each([
    ['no file', undefined],
    ['broken JSON', '{'],
    ['an array', '[]'],
  ])('refuses a folder with %s', async (_what, text) => {
    const folder = path.join(await createTempDir(), 'given');
    await mkdir(folder);
    if (text !== undefined) await writeFile(path.join(folder, 'generation_config.json'), text);
    const reading = readGenerationConfig(checkpoint, {
      generationConfig: folder,
      overrideGenerationConfig: {},
    });
    await expect(reading).rejects.toMatchObject({
      code: 'invalid_config',
      message: expect.stringContaining(folder) as string,
    });
  });
});

describe('collectEosIds', () => {
  it('joins every source once and drops what is no id', () => {
    expect(collectEosIds({ eos_token_id: 7 }, { eos_token_id: [7, 8, -1, 1.5, 'x'] }, 9)).toEqual([7, 8, 9]);
    expect(collectEosIds({}, {}, null)).toEqual([]);
  });
});
