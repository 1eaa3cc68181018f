import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { open, type FileHandle } from 'node:fs/promises';
import path from 'node:path';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import { CacheFolder } from '../../../../src/load/cache/cache-folder.js';
import { loadModel, type LoadedModel, type LoadOptions } from '../../../../src/load/load-model.js';
import { fixtureFolder, fixtureOptions, runStep } from '../../../helpers/fixture-model.js';
import { writeGenaiModel } from '../../../helpers/genai-model.js';
import { createTempDir } from '../../../helpers/temp-dir.js';

const PROMPT = { ids: [1, 2, 3, 5, 8, 13], start: 0, blocks: [0], rows: [5] };
const calm = { isBusy: () => false, signal: new AbortController().signal };

let dir: string;
let cacheDir: string;
let warnings: string[];
beforeEach(async () => {
  dir = await createTempDir();
  cacheDir = path.join(dir, 'cache');
  warnings = [];
});

interface Changes extends Partial<LoadOptions> {
  readonly minSeconds?: number;
  readonly maxBytes?: number;
  readonly isRequired?: boolean;
}

function load(changes: Changes = {}): Promise<LoadedModel> {
  const { minSeconds = 0, maxBytes = Infinity, isRequired = true, ...options } = changes;
  const model = options.model ?? fixtureFolder('llama_tied');
  return loadModel(
    {
      ...fixtureOptions(model),
      quantization: 'wint8',
      cache: { dir: cacheDir, maxBytes, minSeconds, isRequired },
      ...options,
    },
    { phase: () => undefined, warn: (line) => warnings.push(line) },
  );
}

/** Loads, keeps the weights where that is offered, and returns the logits of a prompt. */
async function answer(changes: Changes = {}): Promise<{ logits: Float32Array; wasCached: boolean }> {
  const model = await load(changes);
  await model.saveToCache?.(calm);
  const [logits] = await runStep(model, [PROMPT]);
  await model.runner.close();
  return { logits: logits!, wasCached: model.saveToCache === undefined };
}

function entries(): readonly string[] {
  const folder = path.join(cacheDir, 'quantized');
  return existsSync(folder) ? readdirSync(folder).map((name) => path.join(folder, name)) : [];
}

describe('the cache of quantized weights', () => {
  it('gives the second start the weights of the first', async () => {
    const first = await answer();
    const second = await answer();
    expect([first.wasCached, second.wasCached]).toEqual([false, true]);
    expect(second.logits).toEqual(first.logits);
    expect(warnings).toEqual([]);
    const [entry = ''] = entries();
    expect(readdirSync(entry).sort()).toEqual(['fdq.json', 'weights.bin']);
    expect(statSync(path.join(cacheDir, 'quantized')).mode & 0o777).toBe(0o700);
    expect(statSync(entry).mode & 0o777).toBe(0o700);
    expect(statSync(path.join(entry, 'weights.bin')).mode & 0o777).toBe(0o600);
  });

  it('holds nothing that is used as stored', async () => {
    await answer();
    const manifest = JSON.parse(readFileSync(path.join(entries()[0]!, 'fdq.json'), 'utf8')) as {
      weights: { tensors: { name: string }[] };
    };
    const names = manifest.weights.tensors.map(({ name }) => name);
    expect(names).toContain('model.layers.0.self_attn.o_proj.weight');
    expect(names).not.toContain('model.embed_tokens.weight');
  });

  it('keeps what is quantized from an ONNX decoder, until that is written to', async () => {
    const model = path.join(dir, 'onnx');
    mkdirSync(model);
    await writeGenaiModel('llama', model);
    const first = await answer({ model });
    const second = await answer({ model });
    expect([first.wasCached, second.wasCached]).toEqual([false, true]);
    expect(second.logits).toEqual(first.logits);
    expect((await answer({ model, quantization: 'wint4' })).wasCached).toBe(false);
    const data = path.join(model, 'model.onnx.data');
    writeFileSync(data, readFileSync(data));
    expect((await answer({ model })).wasCached).toBe(false);
    expect(warnings).toEqual([]);
  });

  it('is one for both types of activations, and another for another scheme', async () => {
    await answer({ dtype: 'float32' });
    expect((await answer({ dtype: 'bfloat16' })).wasCached).toBe(true);
    expect((await answer({ quantization: 'wint4' })).wasCached).toBe(false);
    expect((await answer({ quantizationConfig: { ignore: ['re:.*o_proj'] } })).wasCached).toBe(false);
    expect(entries()).toHaveLength(3);
  });

  it('does not take a checkpoint that was written to for the old one', async () => {
    const model = path.join(dir, 'model');
    cpSync(fixtureFolder('llama_tied'), model, { recursive: true });
    await answer({ model });
    const weights = path.join(model, 'model.safetensors');
    const { atime, mtime } = statSync(weights);
    writeFileSync(weights, readFileSync(weights));
    utimesSync(weights, atime, mtime);
    expect((await answer({ model })).wasCached).toBe(false);
  });

  it('is left alone when loading was quick, and not made by looking', async () => {
    const model = await load({ minSeconds: 3600 });
    await model.runner.close();
    expect(model.saveToCache).toBeUndefined();
    expect(existsSync(cacheDir)).toBe(false);
  });

  it('is not used for models that are not quantized', async () => {
    expect((await load({ quantization: 'none', model: fixtureFolder('llama') })).saveToCache).toBeDefined();
    const { output } = await (
      await import('../../../helpers/convert-fixture.js')
    ).convertFixture('llama_tied', dir, 'wint8');
    const { quantization: _, ...options } = fixtureOptions(output);
    const stored = await loadModel(
      { ...options, cache: { dir: cacheDir, maxBytes: Infinity, minSeconds: 0, isRequired: true } },
      { phase: () => undefined, warn: () => undefined },
    );
    await stored.runner.close();
    expect(stored.saveToCache).toBeUndefined();
  });
});

describe('a damaged entry', () => {
  const damages: readonly (readonly [string, (entry: string) => void])[] = [
    [
      'one flipped bit',
      (entry) => {
        const file = path.join(entry, 'weights.bin');
        const bytes = readFileSync(file);
        bytes[5000]! ^= 1;
        writeFileSync(file, bytes);
      },
    ],
    ['cut weights', (entry) => truncateSync(path.join(entry, 'weights.bin'), 4096)],
    ['no manifest', (entry) => writeFileSync(path.join(entry, 'fdq.json'), '')],
    [
      'linked weights',
      (entry) => {
        renameSync(path.join(entry, 'weights.bin'), path.join(dir, 'weights.bin'));
        symlinkSync(path.join(dir, 'weights.bin'), path.join(entry, 'weights.bin'));
      },
    ],
    ['weights others may write', (entry) => chmodSync(path.join(entry, 'weights.bin'), 0o666)],
    [
      'a link in place of the entry',
      (entry) => {
        renameSync(entry, path.join(dir, 'moved'));
        symlinkSync(path.join(dir, 'moved'), entry);
      },
    ],
    [
      'the entry of another key',
      (entry) => {
        const file = path.join(entry, 'fdq.json');
        writeFileSync(file, readFileSync(file, 'utf8').replace(/"key": "..../, '"key": "0000'));
      },
    ],
  ];

  it.each(damages)('(%s) is named, dropped and quantized again', async (_what, damage) => {
    const first = await answer();
    damage(entries()[0]!);
    const model = await load();
    const [logits] = await runStep(model, [PROMPT]);
    await model.runner.close();
    expect(logits).toEqual(first.logits);
    expect(model.saveToCache).toBeDefined();
    expect(warnings).toHaveLength(1);
    expect(warnings[0]).toMatch(/^Quantized weights in the cache are not used and quantized again: /);
    expect(entries()).toEqual([]);
  });
});

describe('a cache folder that was named', () => {
  it('is tried by many starts at once, whether it exists or not, and stays as it was', async () => {
    const tryAll = (): Promise<void[]> =>
      Promise.all(Array.from({ length: 32 }, () => CacheFolder.probe(path.join(cacheDir, 'deep'))));
    for (let round = 0; round < 10; round++) await tryAll();
    expect(readdirSync(dir)).toEqual([]);
    await Promise.all([tryAll(), CacheFolder.create(path.join(cacheDir, 'deep'))]);
    await tryAll();
    expect(readdirSync(dir, { recursive: true }).sort()).toEqual([
      'cache',
      'cache/deep',
      'cache/deep/quantized',
    ]);
  });
});

describe('a cache folder that cannot be trusted', () => {
  const unsafe: readonly (readonly [string, () => void, string])[] = [
    [
      'a link',
      () => {
        mkdirSync(path.join(dir, 'elsewhere'));
        symlinkSync(path.join(dir, 'elsewhere'), cacheDir);
      },
      'symbolic link',
    ],
    [
      'a linked folder of entries',
      () => {
        mkdirSync(path.join(dir, 'elsewhere'));
        mkdirSync(cacheDir, { mode: 0o700 });
        symlinkSync(path.join(dir, 'elsewhere'), path.join(cacheDir, 'quantized'));
      },
      'symbolic link',
    ],
    [
      'a folder others may write to',
      () => {
        mkdirSync(cacheDir);
        chmodSync(cacheDir, 0o777);
      },
      'other users may write',
    ],
    ['a file', () => writeFileSync(cacheDir, ''), 'not a folder'],
  ];

  it.each(unsafe)('(%s) is an error when it was named, else a warning', async (_what, make, words) => {
    make();
    await expect(load()).rejects.toMatchObject({
      code: 'usage',
      message: expect.stringContaining(words) as string,
    });
    const model = await load({ isRequired: false });
    await model.runner.close();
    expect(model.saveToCache).toBeUndefined();
    expect(warnings).toHaveLength(1);
    expect(warnings[0]).toContain(words);
  });
});

describe('writing an entry', () => {
  it('twice at the same time leaves one', async () => {
    const [a, b] = await Promise.all([load(), load()]);
    await Promise.all([a.saveToCache?.(calm), b.saveToCache?.(calm)]);
    await Promise.all([a.runner.close(), b.runner.close()]);
    expect(entries()).toHaveLength(1);
    expect((await answer()).wasCached).toBe(true);
  });

  it('leaves nothing when it is interrupted, and waits while requests run', async () => {
    const model = await load();
    const controller = new AbortController();
    let asked = 0;
    const isBusy = (): boolean => {
      if (++asked === 2) controller.abort(new Error('stopped'));
      return true;
    };
    await expect(model.saveToCache?.({ isBusy, signal: controller.signal })).rejects.toThrow();
    await model.runner.close();
    expect(entries()).toEqual([]);
  });

  it('leaves nothing when the disk is full, and answers all the same', async () => {
    const model = await load();
    const handle = await open(path.join(dir, 'any'), 'w');
    const full = Object.assign(new Error('write'), { code: 'ENOSPC' });
    const write = vi.spyOn(Object.getPrototypeOf(handle) as FileHandle, 'write').mockRejectedValue(full);
    try {
      await expect(model.saveToCache?.(calm)).rejects.toMatchObject({
        code: 'write_failed',
        message: expect.stringContaining('no space left on the disk') as string,
      });
    } finally {
      write.mockRestore();
      await handle.close();
    }
    expect(readdirSync(path.join(cacheDir, 'quantized'))).toEqual([]);
    const [logits] = await runStep(model, [PROMPT]);
    expect(logits).toHaveLength(model.decoder.vocabSize);
    await model.runner.close();
  });

  it('makes room by dropping what was unused for longest, and skips what does not fit', async () => {
    await answer({ quantization: 'wint8' });
    const [first = ''] = entries();
    const size = statSync(path.join(first, 'weights.bin')).size;
    await answer({ quantization: 'wint8:g32' });
    utimesSync(path.join(first, 'fdq.json'), 1, 1);
    await answer({ quantization: 'wint4', maxBytes: 2.5 * size });
    expect(entries()).toHaveLength(2);
    expect(entries()).not.toContain(first);
    const model = await load({ quantization: 'wint8', maxBytes: size - 1 });
    expect(await model.saveToCache?.(calm)).toContain('do not fit');
    await model.runner.close();
    expect(entries()).toHaveLength(2);
  });
});

describe('CacheFolder', () => {
  it('lists entries with their models, also damaged ones', async () => {
    await answer();
    await answer({ quantization: 'wint4' });
    const folder = (await CacheFolder.find(cacheDir))!;
    const [older, newer] = await folder.list();
    truncateSync(path.join(newer!.dir, 'weights.bin'), 4096);
    expect(older?.manifest?.model).toContain('llama_tied');
    expect((await folder.list())[1]?.problem).toContain('4096 bytes');
    expect(await folder.findProblem(older!.key, 2)).toBeUndefined();
    expect(await folder.findProblem(newer!.key, 2)).toContain('4096 bytes');
  });
});
