import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, rmdirSync, statfsSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { convert, type ConvertOptions } from '../../../src/convert/convert.js';
import { fixtureFolder, fixtureOptions } from '../../helpers/fixture-model.js';
import { createTempDir } from '../../helpers/temp-dir.js';
import { catchError } from '../hub/catch-error.js';

const DISK_BYTES = 32 << 20;
/** Left free when the disk fills up: less than any of the outputs takes. */
const LEFT_BYTES = 64 << 10;

/** File systems may be mounted by root, where the sandbox allows it. */
function mount(dir: string, options: string): boolean {
  return spawnSync('mount', ['-t', 'tmpfs', '-o', options, 'tmpfs', dir]).status === 0;
}

function unmount(dir: string): void {
  spawnSync('umount', [dir]);
}

function canMount(): boolean {
  const dir = mkdtempSync(path.join(tmpdir(), 'fdq-test-'));
  const isMounted = mount(dir, 'size=64k');
  if (isMounted) unmount(dir);
  rmdirSync(dir);
  return isMounted;
}

async function createDisk(): Promise<string> {
  const dir = path.join(await createTempDir(), 'disk');
  mkdirSync(dir);
  expect(mount(dir, `size=${DISK_BYTES}`)).toBe(true);
  onTestFinished(() => unmount(dir));
  return dir;
}

function optionsFor(disk: string, format: ConvertOptions['format']): ConvertOptions {
  return {
    load: { ...fixtureOptions(fixtureFolder('llama_tied')), quantization: 'wint8' },
    output: path.join(disk, 'out'),
    format,
    force: false,
    verify: false,
    signal: new AbortController().signal,
  };
}

// Skipped, by name, where nothing can be mounted.
describe.runIf(canMount())('convert onto a small disk', () => {
  it.each(['fdq', 'safetensors', 'onnx'] as const)('that fills up while %s is written', async (format) => {
    const disk = await createDisk();
    const fill = (name: string, state: string): void => {
      if (name !== 'write' || state !== 'start') return;
      const { bavail, bsize } = statfsSync(disk);
      writeFileSync(path.join(disk, 'filler'), Buffer.alloc(bavail * bsize - LEFT_BYTES));
    };
    const error = await catchError(convert(optionsFor(disk, format), { phase: fill, warn: () => undefined }));
    expect(error).toMatchObject({ code: 'write_failed', exitCode: 1 });
    expect(error.message).toMatch(/no space left on the disk/);
    expect(readdirSync(disk)).toEqual(['filler']);
  });

  it('that is read-only', async () => {
    const disk = await createDisk();
    expect(spawnSync('mount', ['-o', 'remount,ro', disk]).status).toBe(0);
    const observer = { phase: () => undefined, warn: () => undefined };
    const error = await catchError(convert(optionsFor(disk, 'fdq'), observer));
    expect(error).toMatchObject({ code: 'write_failed', exitCode: 1 });
    expect(error.message).toMatch(/read-only/);
  });
});
