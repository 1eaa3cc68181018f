import { readdir, readFile, truncate, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import {
  checkRoom,
  openReference,
  ReferenceWriter,
  type ReferenceKey,
} from '../../../../src/bench/quality/reference-file.js';
import { createTempDir } from '../../../helpers/temp-dir.js';

const KEY: ReferenceKey = {
  checkpoint: 'abc',
  textSha256: 'def',
  window: 4,
  stride: 4,
  windows: 2,
  rows: 6,
  vocab: 5,
};
const LOGITS = Uint16Array.from({ length: KEY.rows * KEY.vocab }, (_, i) => i * 2111);

async function writeReference(): Promise<string> {
  const file = path.join(await createTempDir(), 'logits');
  const writer = await ReferenceWriter.create(file, KEY);
  await writer.append(LOGITS.subarray(0, 2 * KEY.vocab));
  await writer.append(LOGITS.subarray(2 * KEY.vocab));
  await writer.finish();
  return file;
}

describe('logits on disk', () => {
  it('are read as they were written, whatever the parts', async () => {
    const reader = await openReference(await writeReference(), KEY);
    const buffer = new Uint16Array(4 * KEY.vocab);
    expect([...(await reader!.read(0, 1, buffer))]).toEqual([...LOGITS.subarray(0, KEY.vocab)]);
    expect([...(await reader!.read(1, 4, buffer))]).toEqual([...LOGITS.subarray(KEY.vocab, 5 * KEY.vocab)]);
    expect([...(await reader!.read(5, 1, buffer))]).toEqual([...LOGITS.subarray(5 * KEY.vocab)]);
    await reader!.close();
  });

  it('are absent before they are written, and while they are', async () => {
    const file = path.join(await createTempDir(), 'logits');
    const writer = await ReferenceWriter.create(file, KEY);
    await writer.append(LOGITS);
    expect(await openReference(file, KEY)).toBeUndefined();
    await writer.discard();
    expect(await readdir(path.dirname(file))).toEqual([]);
  });

  it.each([
    ['checkpoint', { checkpoint: 'x' }],
    ['text', { textSha256: 'x' }],
    ['--window', { window: 8 }],
    ['--stride', { stride: 2 }],
    ['number of windows', { windows: 3 }],
    ['vocabulary', { vocab: 6 }],
  ])('of another %s are refused', async (what, other) => {
    await expect(openReference(await writeReference(), { ...KEY, ...other })).rejects.toThrow(
      `is of another ${what}`,
    );
  });

  it('that are cut short, or something else, are refused', async () => {
    const file = await writeReference();
    const whole = await readFile(file);
    await truncate(file, whole.length - 1);
    await expect(openReference(file, KEY)).rejects.toThrow(`instead of ${whole.length}`);
    await writeFile(file, 'some notes of mine, which are long enough');
    await expect(openReference(file, KEY)).rejects.toThrow('holds no logits');
    await writeFile(file, Buffer.concat([whole.subarray(0, 12), Buffer.alloc(200, '{')]));
    await expect(openReference(file, KEY)).rejects.toThrow('header');
    await writeFile(file, '');
    await expect(openReference(file, KEY)).rejects.toThrow('holds no logits');
  });

  it('that would take too much are refused before they are computed', async () => {
    const file = path.join(await createTempDir(), 'logits');
    await expect(checkRoom(file, KEY, 60)).resolves.toBeUndefined();
    await expect(checkRoom(file, KEY, 59)).rejects.toMatchObject({
      code: 'usage',
      message: expect.stringContaining('take 60 bytes') as string,
      suggestions: [expect.stringContaining('--max-windows 1') as string, expect.anything()],
    });
    const huge = { ...KEY, rows: 2 ** 46 };
    await expect(checkRoom(file, huge, Infinity)).rejects.toMatchObject({ code: 'write_failed' });
  });
});
