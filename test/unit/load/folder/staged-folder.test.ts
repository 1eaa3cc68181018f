import { createHash } from 'node:crypto';
import { spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { hostname } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { describe, expect, it } from 'vitest';
import { UserError } from '../../../../src/errors.js';
import { PRIVATE_MODES, SHARED_MODES, StagedFolder } from '../../../../src/load/folder/staged-folder.js';
import { WeightsFile } from '../../../../src/load/folder/weights-file.js';
import { writeFailure } from '../../../../src/load/folder/write-problems.js';
import { createTempDir } from '../../../helpers/temp-dir.js';

const HOST = createHash('sha256').update(hostname()).digest('hex').slice(0, 8);

async function stage(target: string): Promise<StagedFolder> {
  const staged = await StagedFolder.create(target, PRIVATE_MODES);
  writeFileSync(path.join(staged.dir, 'file'), 'new');
  return staged;
}

describe('StagedFolder', () => {
  it('appears at its target only when it is published', async () => {
    const parent = await createTempDir();
    const target = path.join(parent, 'out');
    const staged = await stage(target);
    expect(existsSync(target)).toBe(false);
    expect(path.dirname(staged.dir)).toBe(parent);
    expect(await staged.publish({ replace: false })).toBe(true);
    expect(readdirSync(parent)).toEqual(['out']);
    expect(readFileSync(path.join(target, 'file'), 'utf8')).toBe('new');
  });

  it('takes the place of an empty folder, and of a full one only when asked to', async () => {
    const parent = await createTempDir();
    const target = path.join(parent, 'out');
    mkdirSync(target);
    expect(await (await stage(target)).publish({ replace: false })).toBe(true);
    writeFileSync(path.join(target, 'file'), 'old');
    expect(await (await stage(target)).publish({ replace: false })).toBe(false);
    expect(readFileSync(path.join(target, 'file'), 'utf8')).toBe('old');
    expect(await (await stage(target)).publish({ replace: true })).toBe(true);
    expect(readFileSync(path.join(target, 'file'), 'utf8')).toBe('new');
    expect(readdirSync(parent)).toEqual(['out']);
  });

  it.each([
    [PRIVATE_MODES, 0o700, 0o600],
    [SHARED_MODES, 0o750, 0o640],
  ])('has the modes %j, less the umask', async (modes, folder, file) => {
    const target = path.join(await createTempDir(), 'out');
    const before = process.umask(0o027);
    try {
      const staged = await StagedFolder.create(target, modes);
      const weights = await WeightsFile.create(
        path.join(staged.dir, 'w'),
        { tensors: [], bytes: 0 },
        modes.file,
      );
      await weights.close();
      await staged.publish({ replace: false });
    } finally {
      process.umask(before);
    }
    expect(statSync(target).mode & 0o777).toBe(folder);
    expect(statSync(path.join(target, 'w')).mode & 0o777).toBe(file);
  });

  it('leaves nothing when it is discarded, also after it was published', async () => {
    const parent = await createTempDir();
    const target = path.join(parent, 'out');
    await (await stage(target)).discard();
    expect(readdirSync(parent)).toEqual([]);
    const staged = await stage(target);
    await staged.publish({ replace: false });
    await staged.discard();
    expect(readdirSync(parent)).toEqual(['out']);
  });

  it('removes what dead processes left of the same target, and nothing else', async () => {
    const parent = await createTempDir();
    const { pid } = spawnSync(process.execPath, ['--version']);
    const names = {
      dead: `.out.partial-${HOST}-${pid}-00000000`,
      alive: `.out.partial-${HOST}-${process.ppid}-00000000`,
      other: `.other.partial-${HOST}-${pid}-00000000`,
      elsewhere: '.out.partial-ffffffff-1-00000000',
      elsewhereLongAgo: '.out.partial-ffffffff-2-00000000',
      onlyCopy: `.out.partial-${HOST}-${pid}-00000000-old`,
    };
    for (const name of Object.values(names)) mkdirSync(path.join(parent, name));
    utimesSync(path.join(parent, names.elsewhereLongAgo), 1, 1);
    const staged = await stage(path.join(parent, 'out'));
    const left = [names.alive, names.other, names.elsewhere, names.onlyCopy, path.basename(staged.dir)];
    expect(readdirSync(parent).sort()).toEqual(left.sort());
  });

  it('names what is wrong with the place', async () => {
    const parent = await createTempDir();
    await expect(
      StagedFolder.create(path.join(parent, 'absent', 'out'), PRIVATE_MODES),
    ).rejects.toMatchObject({
      code: 'write_failed',
      message: expect.stringContaining('parent folder does not exist') as string,
    });
    writeFileSync(path.join(parent, 'plain'), '');
    await expect(StagedFolder.create(path.join(parent, 'plain', 'out'), PRIVATE_MODES)).rejects.toMatchObject(
      {
        message: expect.stringContaining('not a folder') as string,
      },
    );
  });
});

describe('writeFailure', () => {
  it.each([
    ['ENOSPC', 'no space left'],
    ['EDQUOT', 'quota'],
    ['EACCES', 'may not write'],
    ['EROFS', 'read-only'],
    ['EFBIG', 'larger than files may be'],
  ])('explains %s', (code, words) => {
    const error = writeFailure('/out/weights.bin', Object.assign(new Error('?'), { code })) as Error & {
      suggestions: readonly string[];
    };
    expect(error).toMatchObject({ code: 'write_failed', exitCode: 1, param: '/out/weights.bin' });
    expect(error.message).toContain(words);
    expect(error.suggestions.length).toBeGreaterThan(0);
  });

  it('passes on errors of fdq', () => {
    const error = new UserError('aborted', 'Interrupted.');
    expect(writeFailure('/out', error)).toBe(error);
  });
});
