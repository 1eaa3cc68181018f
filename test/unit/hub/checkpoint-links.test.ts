import { execFile } from 'node:child_process';
import {
  appendFile,
  copyFile,
  mkdir,
  rename,
  rm,
  symlink,
  truncate,
  utimes,
  writeFile,
} from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';
import { verifyUnchanged } from '../../../src/hub/checkpoint.js';
import { openWeightFile, readSmallFile } from '../../../src/hub/weight-file.js';
import { createTempDir } from '../../helpers/temp-dir.js';
import { catchError } from './catch-error.js';
import { open, writeModel } from './checkpoint-fixture.js';

describe('links', () => {
  it('may lead to the blobs of the same repository in the Hugging Face cache', async () => {
    const repo = join(await createTempDir(), 'models--org--name');
    const dir = join(repo, 'snapshots', 'commit');
    await mkdir(join(repo, 'blobs'), { recursive: true });
    await writeModel(dir);
    for (const name of ['config.json', 'model.safetensors']) {
      await rename(join(dir, name), join(repo, 'blobs', `etag-${name}`));
      await symlink(`../../blobs/etag-${name}`, join(dir, name));
    }
    const { files } = await open(dir);
    expect(files[0]?.path).toBe(join(repo, 'blobs', 'etag-model.safetensors'));
  });

  it.each([
    ['0123456789abcdef0123456789abcdef01234567', true],
    ['main', false],
  ])('may lead there from a folder of the snapshot of a commit: %s, %s', async (commit, isAllowed) => {
    const repo = join(await createTempDir(), 'models--org--name');
    const dir = join(repo, 'snapshots', commit, 'sub', 'folder');
    await mkdir(join(repo, 'blobs'), { recursive: true });
    await writeModel(dir);
    await rename(join(dir, 'model.safetensors'), join(repo, 'blobs', 'etag'));
    await symlink('../../../../blobs/etag', join(dir, 'model.safetensors'));
    if (isAllowed) await expect(open(dir)).resolves.toBeDefined();
    else expect((await catchError(open(dir))).message).toContain('outside of the model');
  });

  it('may stay inside the folder, and the folder itself may be a link', async () => {
    const root = await createTempDir();
    await writeModel(join(root, 'real'));
    await rename(join(root, 'real', 'model.safetensors'), join(root, 'real', 'weights'));
    await symlink('weights', join(root, 'real', 'model.safetensors'));
    await symlink('real', join(root, 'link'));
    await expect(open(join(root, 'link'))).resolves.toBeDefined();
  });

  it.each(['model.safetensors', 'config.json', 'model.safetensors.index.json', 'generation_config.json'])(
    'out of the folder are refused: %s',
    async (name) => {
      const root = await createTempDir();
      const dir = join(root, 'model');
      await writeModel(dir);
      if (name.endsWith('index.json')) await rm(join(dir, 'model.safetensors'));
      await rm(join(dir, name), { force: true });
      await writeFile(join(root, 'secret'), '{}');
      await symlink('../secret', join(dir, name));
      const error = await catchError(open(dir));
      expect(error.code).toBe('invalid_checkpoint');
      expect(error.message).toContain(`"${name}"`);
      expect(error.message).toContain('outside of the model');
    },
  );

  it('to the blobs of another repository are refused', async () => {
    const root = await createTempDir();
    const dir = join(root, 'models--a', 'snapshots', 'commit');
    await mkdir(join(root, 'models--a', 'blobs'), { recursive: true });
    await mkdir(join(root, 'models--b', 'blobs'), { recursive: true });
    await writeModel(dir);
    await rename(join(dir, 'model.safetensors'), join(root, 'models--b', 'blobs', 'x'));
    await symlink('../../../models--b/blobs/x', join(dir, 'model.safetensors'));
    expect((await catchError(open(dir))).message).toContain('outside of the model');
  });
});

describe('verifyUnchanged', () => {
  it.each<[string, (path: string) => Promise<void>, RegExp]>([
    ['truncated', (path) => truncate(path, 50), /was truncated from \d+ to 50 bytes/],
    ['extended', (path) => appendFile(path, 'x'), /grew from/],
    ['written to', (path) => utimes(path, 1, 1), /was written to/],
    ['deleted', (path) => rm(path), /does not exist/],
    [
      'replaced',
      async (path) => {
        await copyFile(path, `${path}.new`);
        await rename(`${path}.new`, path);
      },
      /was replaced by another file/,
    ],
  ])('notices a file that was %s', async (_, change, message) => {
    const dir = await createTempDir();
    await writeModel(dir);
    const checkpoint = await open(dir);
    await verifyUnchanged(checkpoint);
    await change(join(dir, 'model.safetensors'));
    const error = await catchError(verifyUnchanged(checkpoint));
    expect(error.code).toBe('invalid_checkpoint');
    expect(error.message).toMatch(message);
    await catchError(openWeightFile(checkpoint.files[0]?.path ?? '', checkpoint.files[0]));
  });
});

describe('openWeightFile', () => {
  it('reads the file that was resolved, even when another takes its name', async () => {
    const dir = await createTempDir();
    await writeFile(join(dir, 'a'), 'first');
    await symlink('a', join(dir, 'link'));
    const handle = await openWeightFile(join(dir, 'link'));
    try {
      await writeFile(join(dir, 'b'), 'other');
      await rename(join(dir, 'b'), join(dir, 'a'));
      expect(await handle.readFile('utf8')).toBe('first');
    } finally {
      await handle.close();
    }
  });

  it('does not wait for the writer of a named pipe', async () => {
    const path = join(await createTempDir(), 'pipe');
    await promisify(execFile)('mkfifo', [path]);
    expect((await catchError(openWeightFile(path))).message).toMatch(/regular file/);
  });

  it('reads small files up to the cap', async () => {
    const path = join(await createTempDir(), 'f');
    await writeFile(path, 'abc');
    expect(Buffer.from(await readSmallFile(path, 3)).toString()).toBe('abc');
    expect((await catchError(readSmallFile(path, 2))).message).toMatch(/at most 2 bytes in "f" but it has 3/);
  });
});
