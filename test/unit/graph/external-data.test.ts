import { execFileSync } from 'node:child_process';
import { link, mkdir, symlink, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import path from 'node:path';

import { describe, expect, it, onTestFinished } from 'vitest';

import { UserError } from '../../../src/errors.js';
import { locateExternalData } from '../../../src/graph/external-data.js';
import { createTempDir } from '../../helpers/temp-dir.js';

/** A model folder with w.bin (16 bytes), beside a secret that must stay out of reach. */
async function createModelDir(): Promise<string> {
  const base = await createTempDir();
  const dir = path.join(base, 'model');
  await mkdir(path.join(dir, 'sub'), { recursive: true });
  await writeFile(path.join(dir, 'w.bin'), new Uint8Array(16));
  await writeFile(path.join(base, 'secret'), new Uint8Array(16));
  return dir;
}

function locate(dir: string, fields: Record<string, string>) {
  const entries = Object.entries(fields).map(([key, value]) => ({ key, value }));
  return locateExternalData(entries, { name: 'w', byteLength: 8, dir });
}

describe('locateExternalData', () => {
  it('finds bytes in the folder of the model', async () => {
    const dir = await createModelDir();
    const file = path.join(dir, 'w.bin');
    const expected = { file, byteLength: 8 };
    expect(locate(dir, { location: 'w.bin', offset: '8', length: '8' })).toEqual({ ...expected, offset: 8 });
    expect(locate(dir, { location: './w.bin', checksum: 'x' })).toEqual({ ...expected, offset: 0 });
  });

  it('accepts a folder that is itself reached through a link', async () => {
    const dir = await createModelDir();
    await symlink(dir, `${dir}-link`);
    expect(locate(`${dir}-link`, { location: 'w.bin' }).file).toBe(path.join(dir, 'w.bin'));
  });

  const locations: Record<string, RegExp> = {
    '': /not a relative path/,
    '../secret': /may leave the folder/,
    'sub/../../secret': /may leave the folder/,
    'sub\\..\\..\\secret': /may leave the folder/,
    '/etc/passwd': /not a relative path/,
    'C:/secret': /not a relative path/,
    'w.bin\0.txt': /not a relative path/,
    '*/_ORT_MEM_ADDR_/*': /into memory/,
    'missing.bin': /cannot be opened/,
    sub: /not a regular file/,
  };
  for (const [location, message] of Object.entries(locations)) {
    it(`refuses the location ${JSON.stringify(location)}`, async () => {
      const dir = await createModelDir();
      expect(() => locate(dir, { location })).toThrow(UserError);
      expect(() => locate(dir, { location })).toThrow(message);
    });
  }

  it('refuses links of either kind and what is not a file', async () => {
    const dir = await createModelDir();
    const secret = path.join(dir, '..', 'secret');
    await symlink(secret, path.join(dir, 'soft'));
    await symlink('w.bin', path.join(dir, 'inner'));
    await symlink(path.join(dir, '..'), path.join(dir, 'up'));
    await link(secret, path.join(dir, 'hard'));
    execFileSync('mkfifo', [path.join(dir, 'pipe')]);
    expect(() => locate(dir, { location: 'soft' })).toThrow(/symbolic link/);
    expect(() => locate(dir, { location: 'inner' })).toThrow(/symbolic link/);
    expect(() => locate(dir, { location: 'up/secret' })).toThrow(/symbolic link/);
    expect(() => locate(dir, { location: 'hard' })).toThrow(/hard link/);
    expect(() => locate(dir, { location: 'pipe' })).toThrow(/not a regular file/);
  });

  it('refuses what cannot be opened at all', async () => {
    const dir = await createModelDir();
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(path.join(dir, 'socket'), resolve));
    onTestFinished(() => void server.close());
    expect(() => locate(dir, { location: 'socket' })).toThrow(/cannot be opened/);
  });

  const fields: Record<string, [Record<string, string>, RegExp]> = {
    'an offset past the end': [{ offset: '9' }, /lies at bytes 9 to 17/],
    'a huge offset': [{ offset: '9007199254740991' }, /which has 16/],
    'an offset past 2^53': [{ offset: '9007199254740993' }, /not a byte count/],
    'a negative offset': [{ offset: '-8' }, /offset "-8"/],
    'an offset in hexadecimal': [{ offset: '0x8' }, /offset "0x8"/],
    'a length that is not of the shape': [{ length: '16' }, /says length 16 but its shape needs 8/],
    'an unknown entry': [{ basepath: '/' }, /"basepath"/],
  };
  for (const [name, [entries, message]] of Object.entries(fields)) {
    it(`refuses ${name}`, async () => {
      const dir = await createModelDir();
      expect(() => locate(dir, { location: 'w.bin', ...entries })).toThrow(message);
    });
  }

  it('refuses an entry given twice and one without a key', async () => {
    const dir = await createModelDir();
    const tensor = { name: 'w', byteLength: 8, dir };
    const location = { key: 'location', value: 'w.bin' };
    expect(() => locateExternalData([location, location], tensor)).toThrow(/repeated entry "location"/);
    expect(() => locateExternalData([location, { value: 'x' }], tensor)).toThrow(
      /unknown or repeated entry ""/,
    );
  });
});
