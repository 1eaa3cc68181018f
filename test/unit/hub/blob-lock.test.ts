import { readdir, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { beforeEach, describe, expect, it } from 'vitest';
import { claimPartialFile, type PartialFile } from '../../../src/hub/blob-lock.js';
import { createTempDir } from '../../helpers/temp-dir.js';

let dir: string;
let blob: string;
beforeEach(async () => {
  dir = await createTempDir();
  blob = path.join(dir, 'blob');
});

function claimAll(count: number): Promise<readonly PartialFile[]> {
  return Promise.all(Array.from({ length: count }, () => claimPartialFile(blob)));
}

describe('claimPartialFile', () => {
  it('gives the file to one of many that come together, again and again', async () => {
    for (let round = 0; round < 50; round++) {
      const claims = await claimAll(8);
      expect(claims.filter(({ isResumable }) => isResumable)).toHaveLength(1);
      expect(new Set(claims.map((claim) => claim.path)).size).toBe(claims.length);
      await Promise.all(claims.map(({ release }) => release()));
    }
    expect(await readdir(dir)).toEqual([]);
  });

  it('never to two at a time while some come and others go', async () => {
    let holders = 0;
    let turns = 0;
    const come = async (): Promise<void> => {
      for (let turn = 0; turn < 50; turn++) {
        const { isResumable, release } = await claimPartialFile(blob);
        if (isResumable) {
          turns++;
          expect(++holders).toBe(1);
        }
        // Those that get none take their time too: else they are through before the first holds it.
        await readdir(dir);
        if (isResumable) holders--;
        await release();
      }
    };
    await Promise.all(Array.from({ length: 8 }, come));
    expect(turns).toBeGreaterThan(1);
    expect(await readdir(dir)).toEqual([]);
  });

  it.each([
    ['a process that has died', 999_999_999],
    ['this process id, from before a restart', process.pid],
  ])('gives one of many the lock of %s', async (_, pid) => {
    for (let round = 0; round < 20; round++) {
      await writeFile(`${blob}.lock`, `${hostname()} ${pid}`);
      const claims = await claimAll(8);
      expect(claims.filter(({ isResumable }) => isResumable)).toHaveLength(1);
      await Promise.all(claims.map(({ release }) => release()));
    }
    expect(await readdir(dir)).toEqual([]);
  });
});
