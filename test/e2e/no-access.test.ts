import { spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, readdirSync } from 'node:fs';
import path from 'node:path';
import process from 'node:process';
import { beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { BIN, CHILD_TIMEOUT_MS, cleanEnvironment, ROOT } from '../helpers/cli.js';
import { createTempDir } from '../helpers/temp-dir.js';
import { unprivileged } from '../helpers/unprivileged.js';

const DEMO = path.join(ROOT, 'models', 'demo');
const CHILD = path.join(ROOT, 'test', 'helpers', 'cache-child.mjs');

let dir: string;
let closed: string;
beforeEach(async () => {
  dir = await createTempDir();
  closed = path.join(dir, 'closed');
  mkdirSync(closed, { mode: 0o700 });
});

/** Takes rights from a folder until the test ends. */
function close(mode: number): void {
  chmodSync(closed, mode);
  onTestFinished(() => {
    chmodSync(closed, 0o700);
  });
}

interface Outcome {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

function runNode(...args: readonly string[]): Outcome {
  const [program, ...rest] = unprivileged([process.execPath, ...args]);
  // One that serves instead of ending is a failure, not a wait.
  const options = { env: cleanEnvironment(), encoding: 'utf8', timeout: CHILD_TIMEOUT_MS } as const;
  return spawnSync(program, rest, options);
}

/** Leaves one entry in the cache. */
function fill(): { readonly key: string } {
  const { lines } = serveWithCache(closed) as { lines: readonly (readonly string[])[] };
  expect(lines).toEqual([['info', expect.stringMatching(/^Kept /)]]);
  return { key: readdirSync(path.join(closed, 'quantized'))[0] ?? '' };
}

/** What a server said and answered. */
function serveWithCache(cacheDir: string, prefix: readonly string[] = []): unknown {
  const command = [...prefix, process.execPath, CHILD, cacheDir];
  const [program, ...args] = unprivileged(command);
  const { status, stdout, stderr } = spawnSync(program, args, { env: cleanEnvironment(), encoding: 'utf8' });
  expect(stderr).toBe('');
  expect(status).toBe(0);
  return JSON.parse(stdout);
}

describe('fdq convert', () => {
  it('says that this user may not write to the output, and leaves nothing', () => {
    close(0o555);
    const { status, stderr } = runNode(BIN, 'convert', DEMO, '-q', 'wint8', '-o', path.join(closed, 'out'));
    expect(stderr).toMatch(/Could not write ".*closed.*": this user may not write there\./);
    expect(stderr).toContain('Choose a folder this user may write to');
    expect(status).toBe(1);
    expect(readdirSync(closed)).toEqual([]);
  });
});

describe('fdq serve', () => {
  const kept = 'The quantized weights were not kept: ';

  it('runs on with a warning where it may not write to the cache folder', () => {
    close(0o555);
    expect(serveWithCache(closed)).toEqual({
      lines: [
        [
          'warn',
          `${kept}Could not write ${JSON.stringify(path.join(closed, 'quantized'))}: this user may not write there.`,
        ],
      ],
      answer: expect.stringMatching(/./) as string,
    });
    expect(readdirSync(closed)).toEqual([]);
  });

  it('ends before it reads anything where it may not write to a cache folder that was named', () => {
    close(0o555);
    const cacheDir = path.join(closed, 'fdq');
    const args = ['--port', '0', '--cache-dir', cacheDir];
    const { status, stderr } = runNode(BIN, 'serve', path.join(dir, 'no-model'), ...args);
    expect(stderr).toContain(
      `Could not write ${JSON.stringify(path.join(cacheDir, 'quantized'))}: this user may not write there.`,
    );
    expect(stderr).toContain('Code: write_failed');
    expect(status).toBe(1);
    expect(readdirSync(closed)).toEqual([]);
  });

  it('ends at once where a cache folder that was named can never be made', () => {
    const { status, stderr } = runNode(BIN, 'serve', DEMO, '--port', '0', '--cache-dir', '/proc/fdq/cache');
    expect(stderr).toContain('Could not write "/proc/fdq/cache/quantized"');
    expect(status).toBe(1);
  });

  it('runs on with a warning where it may not enter the cache folder', () => {
    close(0o000);
    const cacheDir = path.join(closed, 'fdq');
    expect(serveWithCache(cacheDir)).toMatchObject({
      lines: [['warn', expect.stringMatching(/^No cache of quantized weights: .*this user may not read it/)]],
      answer: expect.stringMatching(/./) as string,
    });
  });

  it('runs on with a warning when the disk takes no more of the cache, and leaves nothing unfinished', () => {
    const limited = ['sh', '-c', 'ulimit -f 200; exec "$0" "$@"'];
    expect(serveWithCache(closed, limited)).toMatchObject({
      lines: [['warn', expect.stringContaining(`${kept}Could not write`)]],
      answer: expect.stringMatching(/./) as string,
    });
    expect(readdirSync(path.join(closed, 'quantized'))).toEqual([]);
  });
});

describe('fdq cache', () => {
  it('names a folder that it may not enter', () => {
    close(0o000);
    const { status, stderr } = runNode(BIN, 'cache', 'ls', '--cache-dir', path.join(closed, 'fdq'));
    expect(stderr).toContain('this user may not read it');
    expect(status).toBe(2);
  });

  it('names entries that it may not read or remove', () => {
    const { key } = fill();
    const quantized = path.join(closed, 'quantized');
    close(0o700);
    chmodSync(quantized, 0o500);
    const cleared = runNode(BIN, 'cache', 'clear', '--cache-dir', closed);
    expect(cleared.stderr).toMatch(/Could not write ".*": this user may not write there\./);
    expect(cleared.status).toBe(1);
    expect(readdirSync(quantized)).toEqual([key]);
    chmodSync(quantized, 0o000);
    const listed = runNode(BIN, 'cache', 'ls', '--cache-dir', closed);
    expect(listed.stderr).toContain('this user may not read it');
    expect(listed.status).toBe(2);
    chmodSync(quantized, 0o700);
  });

  it('names a path that leads through a file', () => {
    const { status, stderr } = runNode(BIN, 'cache', 'ls', '--cache-dir', path.join(BIN, 'fdq'));
    expect(stderr).toContain('a part of the path is not a folder');
    expect(status).toBe(2);
  });
});
