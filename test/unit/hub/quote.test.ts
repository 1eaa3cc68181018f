import { mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { quote, quotePath } from '../../../src/hub/quote.js';
import { readSafetensorsHeader } from '../../../src/hub/safetensors.js';
import { createTempDir } from '../../helpers/temp-dir.js';
import { catchError } from './catch-error.js';

describe('text of others in messages', () => {
  it('is cut short, but for paths, whose end tells files apart', () => {
    const long = `${'folder/'.repeat(40)}model-00017-of-00030.safetensors`;
    expect(quote(long)).toBe(`"${long.slice(0, 120)}..."`);
    expect(quotePath(long)).toBe(`"${long}"`);
    expect(quotePath('a\u001b[2J\n')).toBe(String.raw`"a\u001b[2J\u000a"`);
    expect(quotePath('a'.repeat(5000))).toHaveLength(4096 + '"..."'.length);
  });

  it.each(['', '\0', '["'])('names a damaged file in a deep folder (%j)', async (header) => {
    const dir = path.join(await createTempDir(), 'snapshots', '0123456789abcdef'.repeat(10));
    const file = path.join(dir, 'model-00017-of-00030.safetensors');
    await mkdir(dir, { recursive: true });
    const size = Buffer.alloc(8);
    size.writeBigUInt64LE(BigInt(header.length));
    await writeFile(file, Buffer.concat([size, Buffer.from(header)]));
    expect((await catchError(readSafetensorsHeader(file))).message).toContain(file);
  });
});
