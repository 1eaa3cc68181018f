import { mkdir, readlink, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { locateModel } from '../../../src/hub/locate.js';
import { createTempDir } from '../../helpers/temp-dir.js';
import { writeSafetensors } from '../../helpers/write-safetensors.js';
import { catchError } from './catch-error.js';
import { ID, startFixture } from './hub-fixture.js';

const COMMIT = '0123456789abcdef0123456789abcdef01234567';

interface Cache {
  readonly env: Record<string, string>;
  readonly repo: string;
  readonly snapshot: string;
}

/** A cache with one complete snapshot of org/tiny, `main` pointing at it, and no network to fall back to. */
async function createCache(): Promise<Cache> {
  const cacheDir = await createTempDir();
  const repo = join(cacheDir, 'models--org--tiny');
  const snapshot = join(repo, 'snapshots', COMMIT);
  for (const folder of ['blobs', 'refs/refs/pr', `snapshots/${COMMIT}`]) {
    await mkdir(join(repo, folder), { recursive: true });
  }
  await writeFile(join(repo, 'refs', 'main'), COMMIT);
  await writeFile(join(repo, 'refs', 'refs', 'pr', '1'), `${COMMIT}\n`);
  await writeFile(join(repo, 'blobs', 'config'), '{}');
  await writeSafetensors(join(repo, 'blobs', 'weights'), { w: { dtype: 'F16', shape: [2] } });
  await symlink('../../blobs/config', join(snapshot, 'config.json'));
  await symlink('../../blobs/weights', join(snapshot, 'model.safetensors'));
  return { env: { HF_HUB_CACHE: cacheDir, HF_HUB_OFFLINE: '1' }, repo, snapshot };
}

describe('locateModel with a folder', () => {
  it('takes it as it is', async () => {
    const dir = await createTempDir();
    expect(await locateModel(dir, { env: {} })).toEqual({ dir, reference: dir, source: 'folder' });
    await mkdir(join(dir, 'home'));
    const located = await locateModel('~/home', { env: { HOME: dir } });
    expect(located).toEqual({ dir: join(dir, 'home'), reference: '~/home', source: 'folder' });
  });

  it('refuses a revision', async () => {
    const dir = await createTempDir();
    expect(await catchError(locateModel(dir, { revision: 'main', env: {} }))).toMatchObject({
      code: 'usage',
    });
  });

  it('names one that does not exist, and its neighbours', async () => {
    const dir = await createTempDir();
    await mkdir(join(dir, 'qwen3-base'));
    const error = await catchError(locateModel(join(dir, 'qwen3-bse'), { env: {} }));
    expect(error).toMatchObject({ code: 'model_not_found', exitCode: 3 });
    expect(error.message).toContain(join(dir, 'qwen3-bse'));
    expect(error.suggestions[0]).toContain(join(dir, 'qwen3-base'));
    const lonely = await catchError(locateModel(join(dir, 'none', 'x'), { env: {} }));
    expect(lonely.suggestions.join()).not.toContain('Did you mean');
  });

  it.each(['./none', '../none', 'none', 'a/b/c'])('never asks the hub for %s', async (reference) => {
    const { env, server } = await startFixture();
    expect((await catchError(locateModel(reference, { env }))).code).toBe('model_not_found');
    expect(server.requests).toEqual([]);
  });

  it('is not looked up on the hub beside a folder of that name', async () => {
    const { env, server } = await startFixture();
    const error = await catchError(locateModel('test/unitt', { env }));
    expect(error).toMatchObject({ code: 'model_not_found', exitCode: 3, param: 'test/unitt' });
    expect(error.suggestions.join('\n')).toContain('Did you mean "test/unit"?');
    expect(error.suggestions.join('\n')).toContain('hf:test/unitt');
    expect(server.requests).toEqual([]);
  });

  it.each([
    ['hf:test/unit', undefined],
    ['test/unitt@main', undefined],
    ['test/unitt', 'main'],
  ])('is looked up on the hub when it says so: %s, revision %s', async (reference, revision) => {
    const { env, server } = await startFixture();
    const error = await catchError(locateModel(reference, { env, revision }));
    expect(error.code).toBe('model_not_found');
    expect(server.requests[0]?.path).toMatch(/^\/api\/models\/test\/unitt?\//);
  });

  it('says when it is a file', async () => {
    const path = join(await createTempDir(), 'model.safetensors');
    await writeFile(path, '');
    const error = await catchError(locateModel(path, { env: {} }));
    expect(error.message).toMatch(/is a file/);
    expect(error.suggestions).toEqual([`Give its folder: ${JSON.stringify(dirname(path))}.`]);
    const readme = join(dirname(path), 'README.md');
    await writeFile(readme, '');
    expect((await catchError(locateModel(readme, { env: {} }))).suggestions).toEqual([
      'Give the folder that holds config.json and the weights.',
    ]);
    expect((await catchError(locateModel(`${path}/x`, { env: {} }))).code).toBe('model_not_found');
  });

  it('says what to give in place of a GGUF or ONNX file, there or not', async () => {
    const dir = await createTempDir();
    const locate = (name: string) => catchError(locateModel(join(dir, name), { env: {} }));
    expect((await locate('m.gguf')).message).toContain('There is no file');
    expect((await locate('m.onnx')).message).toContain('There is no file');
    for (const name of ['m.gguf', 'm.onnx']) await writeFile(join(dir, name), '');
    const gguf = await locate('m.gguf');
    expect(gguf).toMatchObject({ code: 'unsupported_model', exitCode: 3 });
    expect(gguf.message).toMatch(/m\.gguf" is a GGUF file, which fdq does not read/);
    expect(gguf.suggestions[0]).toContain('Give the safetensors checkpoint that the GGUF was made from');
    const onnx = await locate('m.onnx');
    expect(onnx.message).toMatch(/Expected a model folder but .*m\.onnx" is a file/);
    expect(onnx.suggestions.join()).toContain('fdq convert with --format onnx');
  });

  it('refuses an empty reference', async () => {
    expect((await catchError(locateModel('', { env: {} }))).code).toBe('usage');
    expect((await catchError(locateModel('a\0b', { env: {} }))).code).toBe('usage');
  });
});

describe('locateModel with the cache', () => {
  it.each([ID, `${ID}@main`, `${ID}@refs/pr/1`, `${ID}@${COMMIT}`])('finds %s', async (reference) => {
    const { env, snapshot } = await createCache();
    const located = await locateModel(reference, { env });
    expect(located).toEqual({ dir: snapshot, reference, revision: COMMIT, source: 'cache' });
    expect(await readlink(join(located.dir, 'config.json'))).toBe('../../blobs/config');
  });

  it('finds a revision given as an option', async () => {
    const { env } = await createCache();
    expect((await locateModel(ID, { env, revision: 'refs/pr/1' })).revision).toBe(COMMIT);
  });

  it('asks nobody when the snapshot is complete', async () => {
    const { env, snapshot } = await createCache();
    const { server, env: online } = await startFixture();
    const located = await locateModel(ID, { env: { ...online, HF_HUB_CACHE: env['HF_HUB_CACHE'] ?? '' } });
    expect(located.dir).toBe(snapshot);
    expect(server.requests).toEqual([]);
  });

  it('lists the shards that an interrupted download left out', async () => {
    const { env, snapshot } = await createCache();
    const weight_map = { a: 'model-1.safetensors', w: 'model-2.safetensors' };
    await rename(join(snapshot, 'model.safetensors'), join(snapshot, 'model-2.safetensors'));
    await writeFile(join(snapshot, 'model.safetensors.index.json'), JSON.stringify({ weight_map }));
    const error = await catchError(locateModel(ID, { env }));
    expect(error.code).toBe('offline');
    expect(error.message).toMatch(/incomplete in .*: model-1\.safetensors missing/);
  });

  it('takes a link to a partial blob for a missing file', async () => {
    const { env, repo } = await createCache();
    await rename(join(repo, 'blobs', 'weights'), join(repo, 'blobs', 'weights.incomplete'));
    expect((await catchError(locateModel(ID, { env }))).message).toMatch(/model\.safetensors missing/);
  });
});

describe('locateModel offline', () => {
  it.each<[string, Record<string, string>, { offline?: boolean }]>([
    ['HF_HUB_OFFLINE', { HF_HUB_OFFLINE: 'yes' }, {}],
    ['TRANSFORMERS_OFFLINE', { TRANSFORMERS_OFFLINE: 'True' }, {}],
    ['the option', {}, { offline: true }],
  ])('by %s: says how to fetch, and asks nobody', async (_, variables, options) => {
    const { env, server } = await startFixture();
    const error = await catchError(locateModel(`${ID}@v2`, { env: { ...env, ...variables }, ...options }));
    expect(error).toMatchObject({ code: 'offline', exitCode: 3, param: `${ID}@v2` });
    expect(error.suggestions.join('\n')).toContain('hf download org/tiny --revision v2');
    expect(error.suggestions.join('\n')).toContain('without the offline switch');
    expect(server.requests).toEqual([]);
  });

  it.each<[string, (cache: Cache) => Promise<void>]>([
    ['a ref that is no commit', ({ repo }) => writeFile(join(repo, 'refs', 'main'), '../blobs')],
    ['a missing ref', ({ repo }) => rm(join(repo, 'refs', 'main'))],
    ['a missing snapshot', ({ snapshot }) => rm(snapshot, { recursive: true })],
  ])('does not find a model with %s', async (_, damage) => {
    const cache = await createCache();
    await damage(cache);
    expect((await catchError(locateModel(ID, { env: cache.env }))).message).toMatch(
      /is not in the Hugging Face cache/,
    );
  });
});
