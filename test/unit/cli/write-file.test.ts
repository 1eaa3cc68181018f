import { mkdir, readdir, readFile, readlink, symlink, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { checkWritable, makeFolder, writeFileWhole } from '../../../src/cli/write-file.js';
import { UserError } from '../../../src/errors.js';
import { createTempDir } from '../../helpers/temp-dir.js';

describe('a file of a report', () => {
  it('is checked without being touched', async () => {
    const dir = await createTempDir();
    const old = path.join(dir, 'old');
    await writeFile(old, 'kept');
    checkWritable(path.join(dir, 'new'), '--html');
    checkWritable(old, '--html');
    checkWritable('/dev/null', '--html');
    expect(await readdir(dir)).toEqual(['old']);
    expect(await readFile(old, 'utf8')).toBe('kept');
  });

  it('is refused where it cannot be', async () => {
    const dir = await createTempDir();
    const file = path.join(dir, 'file');
    await writeFile(file, '');
    for (const wrong of [dir, path.join(dir, 'none', 'x'), path.join(file, 'x')]) {
      expect(() => checkWritable(wrong, '--html')).toThrow(
        expect.objectContaining({ code: 'usage', param: '--html' }) as UserError,
      );
    }
  });

  it('is replaced in one piece, and links stay links', async () => {
    const dir = await createTempDir();
    const target = path.join(dir, 'target');
    const link = path.join(dir, 'link');
    await writeFile(target, 'old');
    await symlink('target', link);
    writeFileWhole(link, 'new');
    expect(await readFile(target, 'utf8')).toBe('new');
    expect(await readlink(link)).toBe('target');
    expect((await readdir(dir)).sort()).toEqual(['link', 'target']);
    writeFileWhole('/dev/null', 'gone');
  });

  it('may have a name as long as names may be', async () => {
    const dir = await createTempDir();
    const name = 'x'.repeat(255);
    checkWritable(path.join(dir, name), '--html');
    writeFileWhole(path.join(dir, name), 'page');
    expect(await readdir(dir)).toEqual([name]);
  });

  it('leaves nothing behind when it cannot be written', async () => {
    const dir = await createTempDir();
    const file = path.join(dir, 'folder');
    await mkdir(file);
    expect(() => writeFileWhole(path.join(dir, 'none', 'x'), '')).toThrow(
      expect.objectContaining({ code: 'write_failed' }) as UserError,
    );
    expect(() => writeFileWhole(file, '')).toThrow(UserError);
    expect(await readdir(dir)).toEqual(['folder']);
  });
});

describe('makeFolder', () => {
  it('makes what is missing of a path', async () => {
    const folder = path.join(await createTempDir(), 'a', 'b');
    makeFolder(folder, '--result-dir');
    makeFolder(folder, '--result-dir');
    expect(await readdir(folder)).toEqual([]);
  });

  it.each([
    ['a folder that takes none', (): string => '/proc/nowhere/else'],
    ['a file', (dir: string): string => path.join(dir, 'file')],
    ['what lies below a file', (dir: string): string => path.join(dir, 'file', 'below')],
  ])('refuses %s', async (_what, place) => {
    const dir = await createTempDir();
    await writeFile(path.join(dir, 'file'), '');
    expect(() => makeFolder(place(dir), '--result-dir')).toThrow(/--result-dir to name a folder/);
  });
});
