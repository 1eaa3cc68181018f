import { open, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { readTransposed } from '../../../src/load/read-transposed.js';
import { openAddon } from '../../helpers/addon.js';
import { createTempDir } from '../../helpers/temp-dir.js';

const OFFSET = 12;

/** Words 0, 1, 2 ... of a type's width. */
function countUp(dataType: 'float32' | 'bfloat16', length: number): Uint32Array | Uint16Array {
  const words = dataType === 'float32' ? new Uint32Array(length) : new Uint16Array(length);
  return words.map((_, i) => i);
}

async function transpose(
  dataType: 'float32' | 'bfloat16',
  n: number,
  k: number,
  missing = 0,
): Promise<Uint8Array<ArrayBuffer>> {
  const file = path.join(await createTempDir(), 'weights');
  const stored = countUp(dataType, n * k);
  const bytes = Buffer.concat([Buffer.alloc(OFFSET), Buffer.from(stored.buffer)]);
  await writeFile(file, bytes.subarray(0, bytes.length - missing));
  const handle = await open(file);
  onTestFinished(() => handle.close());
  const target = new Uint8Array(stored.byteLength);
  const source = { name: 'w', dataType, shape: [n, k], file, offset: OFFSET, byteLength: stored.byteLength };
  await readTransposed(openAddon().addon, { ...source, transposed: true }, handle.fd, target);
  return target;
}

it.each([
  ['float32', 1, 1],
  ['float32', 33, 70],
  ['bfloat16', 70, 33],
  // Several reads.
  ['float32', 3000, 501],
  // A row longer than one read.
  ['bfloat16', 2_200_000, 3],
] as const)('reads a %s weight of %i rows and %i columns from its transpose', async (dataType, n, k) => {
  const bytes = await transpose(dataType, n, k);
  const read = dataType === 'float32' ? new Uint32Array(bytes.buffer) : new Uint16Array(bytes.buffer);
  const mask = dataType === 'float32' ? 0xffffffff : 0xffff;
  let wrong = 0;
  for (let row = 0; row < n; row++) {
    for (let column = 0; column < k; column++) {
      if (read[row * k + column] !== ((column * n + row) & mask) >>> 0) wrong++;
    }
  }
  expect(wrong).toBe(0);
});

it('says which weight its file does not hold', async () => {
  await expect(transpose('float32', 40, 40, 1)).rejects.toMatchObject({
    code: 'invalid_checkpoint',
    param: 'w',
  });
});
