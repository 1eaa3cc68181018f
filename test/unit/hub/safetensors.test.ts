import { link, mkdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { readSafetensorsHeader } from '../../../src/hub/safetensors.js';
import { createTempDir } from '../../helpers/temp-dir.js';
import { buildSafetensors, writeRawSafetensors, writeSafetensors } from '../../helpers/write-safetensors.js';
import type { RawSafetensors } from '../../helpers/write-safetensors.js';
import { catchError } from './catch-error.js';

async function refuse(raw: RawSafetensors): Promise<string> {
  const path = join(await createTempDir(), 'bad.safetensors');
  await writeRawSafetensors(path, raw);
  const error = await catchError(readSafetensorsHeader(path));
  expect(error.code).toBe('invalid_checkpoint');
  expect(error.message).toContain('bad.safetensors');
  return error.message;
}

/** One tensor `a`, its entry given as JSON text. */
function withEntry(entry: string, dataBytes = 0): RawSafetensors {
  return { header: `{"a":${entry}}`, data: new Uint8Array(dataBytes) };
}

function entry(dtype: string, shape: string, begin: string | number, end: string | number): string {
  return `{"dtype":"${dtype}","shape":${shape},"data_offsets":[${begin},${end}]}`;
}

describe('readSafetensorsHeader', () => {
  it('places every tensor in the file', async () => {
    const path = join(await createTempDir(), 'm.safetensors');
    const data = new Uint8Array([1, 2, 3, 4, 5, 6, 7, 8]);
    await writeSafetensors(
      path,
      {
        'a.weight': { dtype: 'BF16', shape: [2, 3] },
        b: { dtype: 'F32', shape: [2], data },
        scalar: { dtype: 'F16', shape: [] },
        empty: { dtype: 'F32', shape: [0, 7] },
      },
      { format: 'pt' },
    );
    const { tensors, metadata, file } = await readSafetensorsHeader(path);
    expect([...tensors.keys()]).toEqual(['a.weight', 'b', 'scalar', 'empty']);
    expect([...metadata]).toEqual([['format', 'pt']]);
    const b = tensors.get('b');
    expect(b).toMatchObject({ name: 'b', dtype: 'F32', shape: [2], file: path, byteLength: 8 });
    const bytes = await readFile(path);
    expect(bytes.subarray(b?.offset, (b?.offset ?? 0) + 8)).toEqual(Buffer.from(data));
    expect(tensors.get('a.weight')?.offset).toBe((b?.offset ?? 0) - 12);
    expect(tensors.get('scalar')?.byteLength).toBe(2);
    expect(tensors.get('empty')?.byteLength).toBe(0);
    expect(file).toMatchObject({ path, size: bytes.length });
  });

  it('accepts tensors listed in another order than they lie, and sub-byte types that fill bytes', async () => {
    const path = join(await createTempDir(), 'm.safetensors');
    const header = `{"b":${entry('F4', '[3,2]', 4, 7)},"a":${entry('F6_E2M3', '[4]', 1, 4)},"c":${entry('U8', '[1]', 0, 1)}}`;
    await writeRawSafetensors(path, { header, data: new Uint8Array(7) });
    expect((await readSafetensorsHeader(path)).tensors.get('a')?.byteLength).toBe(3);
  });

  it('names the resolved file when the path is a link', async () => {
    const dir = await createTempDir();
    await writeSafetensors(join(dir, 'blob'), { a: { dtype: 'U8', shape: [1] } });
    await symlink('blob', join(dir, 'm.safetensors'));
    const { tensors } = await readSafetensorsHeader(join(dir, 'm.safetensors'));
    expect(tensors.get('a')?.file).toBe(join(dir, 'blob'));
  });
});

describe('readSafetensorsHeader refuses', () => {
  it.each<[string, RawSafetensors, RegExp]>([
    [
      'a header longer than the file',
      { header: '{}', claimedLength: 3n },
      /claims 3 bytes, but only 2 follow/,
    ],
    [
      'a header over the limit',
      { header: '{}', claimedLength: 100_000_001n },
      /more than the allowed 100000000/,
    ],
    [
      'a header of 2^63 bytes',
      { header: '{}', claimedLength: 1n << 63n },
      /claims 9223372036854775808 bytes/,
    ],
    [
      'a header of 2^64 - 1 bytes',
      { header: '{}', claimedLength: (1n << 64n) - 1n },
      /more than the allowed/,
    ],
    ['an empty header', { header: '' }, /does not start with "\{"/],
    ['a header that begins with a space', { header: ' {}' }, /does not start with "\{"/],
    ['a header that is a list', { header: '[]' }, /does not start with "\{"/],
    ['a byte order mark', { header: '\ufeff{}' }, /does not start with "\{"/],
    ['invalid UTF-8', { header: Buffer.from([0x7b, 0x22, 0xc3, 0x22, 0x7d]) }, /not valid UTF-8/],
    ['broken JSON', { header: '{"a":' }, /does not parse/],
    ['text behind the object', { header: '{} {}' }, /does not parse/],
    ['nesting', { header: `{"a":${'['.repeat(50)}` }, /nested deeper than 3 levels/],
    [
      'a duplicate tensor',
      { header: `{"a":${entry('U8', '[0]', 0, 0)},"a":${entry('U8', '[0]', 0, 0)}}` },
      /twice/,
    ],
    [
      'a duplicate key',
      withEntry('{"dtype":"U8","dtype":"U8","shape":[0],"data_offsets":[0,0]}'),
      /"dtype" appears/,
    ],
    [
      'a long name',
      { header: `{"${'n'.repeat(1025)}":${entry('U8', '[0]', 0, 0)}}` },
      /longer than 1024 characters/,
    ],
    [
      'a name with half a character',
      { header: `{"\\ud800":${entry('U8', '[0]', 0, 0)}}` },
      /not valid Unicode/,
    ],
    ['metadata that is a list', { header: '{"__metadata__":[]}' }, /"__metadata__" is a list of 0/],
    ['metadata with a number', { header: '{"__metadata__":{"k":1}}' }, /metadata "k" is the number 1/],
    ['an entry that is null', withEntry('null'), /tensor "a" is null, not an object/],
    ['an unknown key', withEntry('{"dtype":"U8","shape":[0],"data_offsets":[0,0],"x":1}'), /unknown key "x"/],
    ['no dtype', withEntry('{"shape":[0],"data_offsets":[0,0]}'), /dtype is missing/],
    ['an unknown dtype', withEntry(entry('F3', '[0]', 0, 0)), /dtype is the string "F3", not one of BOOL/],
    ['an inherited dtype', withEntry(entry('toString', '[0]', 0, 0)), /dtype is the string "toString"/],
    ['a shape that is a number', withEntry(entry('U8', '1', 0, 1), 1), /shape is the number 1, not a list/],
    [
      'nine dimensions',
      withEntry(entry('U8', '[1,1,1,1,1,1,1,1,1]', 0, 1), 1),
      /9 dimensions, not 8 or fewer/,
    ],
    ['a size as a string', withEntry(entry('U8', '["1"]', 0, 1), 1), /shape\[0\] is the string "1"/],
    ['a negative size', withEntry(entry('U8', '[-1]', 0, 1), 1), /not a plain non-negative integer/],
    ['a fraction', withEntry(entry('U8', '[1.0]', 0, 1), 1), /not a plain non-negative integer/],
    [
      'a size of 2^53',
      withEntry(entry('U8', '[9007199254740992]', 0, 1), 1),
      /shape\[0\] is the number 9007199254740992/,
    ],
    [
      'a size of 2^53 + 1',
      withEntry(entry('U8', '[9007199254740993]', 0, 1), 1),
      /not an integer from 0 to 2\^53 - 1/,
    ],
    [
      'an offset of 2^64',
      withEntry(entry('U8', '[1]', 0, '18446744073709551616'), 1),
      /data_offsets\[1\] is the number/,
    ],
    [
      'sizes whose product wraps to 0',
      withEntry(entry('U8', '[4294967296,4294967296]', 0, 0)),
      /shape .* overflows/,
    ],
    [
      'huge sizes hidden by a 0',
      withEntry(entry('U8', '[4503599627370496,4503599627370496,0]', 0, 0)),
      /overflows/,
    ],
    [
      'three offsets',
      withEntry('{"dtype":"U8","shape":[1],"data_offsets":[0,1,1]}', 1),
      /a list of 3, not a pair/,
    ],
    [
      'offsets that are missing',
      withEntry('{"dtype":"U8","shape":[1]}', 1),
      /data_offsets is missing, not a pair/,
    ],
    ['offsets in the wrong order', withEntry(entry('U8', '[1]', 1, 0), 1), /begin at 1 and end before, at 0/],
    [
      'an end outside of the file',
      withEntry(entry('U8', '[9]', 0, 9), 8),
      /ends at byte 9 of the data, but the file has 8/,
    ],
    [
      'a shape larger than its bytes',
      withEntry(entry('F32', '[3]', 0, 8), 8),
      /takes 8 bytes, but F32 \[3\] needs 12/,
    ],
    [
      'a shape smaller than its bytes',
      withEntry(entry('F32', '[1]', 0, 8), 8),
      /takes 8 bytes, but F32 \[1\] needs 4/,
    ],
    ['half a byte', withEntry(entry('F4', '[3]', 0, 2), 2), /F4 \[3\] does not end at a whole byte/],
    [
      'bytes behind the last tensor',
      withEntry(entry('U8', '[1]', 0, 1), 3),
      /2 bytes at the end of the file belong to no/,
    ],
    [
      'a hole at the start',
      withEntry(entry('U8', '[1]', 1, 2), 2),
      /begins at 1, leaving a hole of 1 byte\./,
    ],
    [
      'a hole between tensors',
      {
        header: `{"a":${entry('U8', '[1]', 0, 1)},"b":${entry('U8', '[1]', 2, 3)}}`,
        data: new Uint8Array(3),
      },
      /tensor "b" begins at 2, leaving a hole/,
    ],
    [
      'overlapping tensors',
      {
        header: `{"a":${entry('U8', '[2]', 0, 2)},"b":${entry('U8', '[2]', 1, 3)}}`,
        data: new Uint8Array(3),
      },
      /tensor "b" overlaps/,
    ],
    [
      'two tensors on the same bytes',
      {
        header: `{"a":${entry('U8', '[2]', 0, 2)},"b":${entry('U8', '[2]', 0, 2)}}`,
        data: new Uint8Array(2),
      },
      /tensor "b" overlaps/,
    ],
  ])('%s', async (_, raw, message) => {
    expect(await refuse(raw)).toMatch(message);
  });

  it('more tensors than the cap', async () => {
    const names = Array.from({ length: (1 << 18) + 1 }, (_, i) => `"${i}":{}`);
    expect(await refuse({ header: `{${names.join(',')}}` })).toMatch(
      /262145 tensors, more than the allowed 262144/,
    );
  });

  it('files too short for a length, naming their size', async () => {
    const path = join(await createTempDir(), 'm.safetensors');
    await writeFile(path, Buffer.alloc(7));
    expect((await catchError(readSafetensorsHeader(path))).message).toMatch(/it has 7 bytes/);
  });

  it('a valid file cut anywhere', async () => {
    const bytes = buildSafetensors({ a: { dtype: 'F32', shape: [4] }, b: { dtype: 'BF16', shape: [3] } });
    const path = join(await createTempDir(), 'm.safetensors');
    for (let length = 0; length < bytes.length; length++) {
      await writeFile(path, bytes.subarray(0, length));
      expect((await catchError(readSafetensorsHeader(path))).code).toBe('invalid_checkpoint');
    }
  });

  it('a Git LFS pointer, with the command that helps', async () => {
    const path = join(await createTempDir(), 'm.safetensors');
    await writeFile(path, 'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n');
    const error = await catchError(readSafetensorsHeader(path));
    expect(error.message).toMatch(/Git LFS pointer/);
    expect(error.suggestions[0]).toMatch(/git lfs pull/);
  });

  it('what is not a regular file', async () => {
    const dir = await createTempDir();
    await mkdir(join(dir, 'm.safetensors'));
    expect((await catchError(readSafetensorsHeader(join(dir, 'm.safetensors')))).message).toMatch(
      /regular file/,
    );
    expect((await catchError(readSafetensorsHeader('/dev/zero'))).message).toMatch(/regular file/);
    expect((await catchError(readSafetensorsHeader(join(dir, 'none')))).message).toMatch(/does not exist/);
  });

  it('control characters in names stay out of the message', async () => {
    const message = await refuse({ header: `{"\\u001b]0;x\\u0007":null}` });
    expect(message).toContain('\\u001b]0;x\\u0007');
    expect(message).not.toContain('\u001b');
  });

  it('nothing for being hard-linked', async () => {
    const dir = await createTempDir();
    await writeSafetensors(join(dir, 'a'), { a: { dtype: 'U8', shape: [1] } });
    await link(join(dir, 'a'), join(dir, 'b'));
    expect((await readSafetensorsHeader(join(dir, 'b'))).tensors.size).toBe(1);
  });
});
