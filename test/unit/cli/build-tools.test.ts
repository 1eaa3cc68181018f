import { spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ROOT } from '../../helpers/cli.js';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'fdq-path-'));
});
afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

/** Builds where only `programs` are on the PATH; none of them does anything. */
function build(programs: readonly string[], environment: Record<string, string> = {}): string {
  for (const program of programs) {
    const file = path.join(folder, program);
    writeFileSync(file, '#!/bin/sh\nexit 1\n');
    chmodSync(file, 0o755);
  }
  const script = path.join(ROOT, 'scripts', 'build.mjs');
  const result = spawnSync(process.execPath, [script, '--addon-only'], {
    encoding: 'utf8',
    env: { PATH: folder, ...environment },
  });
  expect(result.status).toBe(1);
  expect(result.stdout).toBe('');
  return result.stderr;
}

describe('scripts/build.mjs', () => {
  it('names everything that is missing with the command of the package manager here', () => {
    expect(build(['apt-get'])).toBe(
      "fdq's native addon needs a C++17 compiler and CMake and make or ninja, not found on PATH. Install with:\n" +
        '  sudo apt-get install -y g++ cmake make\n',
    );
  });

  it('names only what is missing', () => {
    expect(build(['dnf', 'g++', 'ninja'])).toMatch(
      /needs CMake, not found.*\n {2}sudo dnf install -y cmake\n$/,
    );
  });

  it('lists the commands of all package managers where it finds none', () => {
    const text = build(['cmake', 'make']);
    expect(text).toContain('apt-get install -y g++\n');
    expect(text).toContain('dnf install -y gcc-c++\n');
    expect(text).toContain('brew install gcc\n');
  });

  it('takes the compiler CXX names', () => {
    expect(build(['apt-get', 'c++', 'cmake', 'make'], { CXX: 'no-such-compiler -O2' })).toContain(
      'C++17 compiler',
    );
  });

  it('refuses arguments it does not know', () => {
    const script = path.join(ROOT, 'scripts', 'build.mjs');
    const { stderr, status } = spawnSync(process.execPath, [script, '--fast'], { encoding: 'utf8' });
    expect({ status, stderr }).toEqual({
      status: 1,
      stderr: 'Expected --if-needed or --addon-only but received --fast.\n',
    });
  });
});
