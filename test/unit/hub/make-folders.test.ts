import { mkdir, stat, symlink, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { findMissingFolders, makeFolders } from '../../../src/hub/make-folders.js';
import { createTempDir } from '../../helpers/temp-dir.js';

describe('making folders', () => {
  it('makes those that are missing, in the mode asked for', async () => {
    const root = await createTempDir();
    const dir = path.join(root, 'a', 'b', 'c');
    await mkdir(path.join(root, 'a'));
    const before = await stat(path.join(root, 'a'));
    expect(await findMissingFolders(dir)).toEqual([path.dirname(dir), dir]);
    await makeFolders(dir, 0o700);
    expect((await stat(path.join(root, 'a'))).mode).toBe(before.mode);
    expect((await stat(path.dirname(dir))).mode & 0o777).toBe(0o700);
    expect(await findMissingFolders(dir)).toEqual([]);
  });

  it('is done by several at once', async () => {
    const dir = path.join(await createTempDir(), 'a', 'b');
    await Promise.all(Array.from({ length: 8 }, () => makeFolders(dir)));
    expect((await stat(dir)).isDirectory()).toBe(true);
  });

  it('ends where none can be made', async () => {
    await expect(makeFolders('/proc/none/a')).rejects.toThrow('ENOENT');
    const file = path.join(await createTempDir(), 'file');
    await writeFile(file, '');
    await expect(makeFolders(path.join(file, 'a'))).rejects.toThrow('ENOTDIR');
    await expect(makeFolders(file)).rejects.toThrow('ENOTDIR');
    const link = path.join(path.dirname(file), 'link');
    await symlink('nowhere', link);
    await expect(makeFolders(link)).rejects.toThrow('ENOENT');
  });
});
