import { spawnSync } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { ROOT } from '../../helpers/cli.js';
import { writeProgram, writeToolkit } from '../../helpers/fake-programs.js';
import { createTempDir } from '../../helpers/temp-dir.js';

/** A copy of the scripts beside the real sources: what they build stays in the test's folder. */
let copy: string;
beforeEach(async () => {
  copy = await createTempDir();
  mkdirSync(path.join(copy, 'custom-ops'));
  symlinkSync(path.join(ROOT, 'custom-ops', 'cuda'), path.join(copy, 'custom-ops', 'cuda'));
  for (const name of ['build-cuda.mjs', 'cuda-toolkit.mjs', 'cuda-toolkit.txt', 'native-tools.mjs']) {
    cpSync(path.join(ROOT, 'scripts', name), path.join(copy, 'scripts', name));
  }
});

const inside = (...names: string[]): string => path.join(copy, ...names);
const library = (): string => inside('custom-ops', 'build', 'Release', 'libfdq_cuda.so');

interface Outcome {
  status: number | null;
  stdout: string;
  stderr: string;
}

function build(home: string, { PATH = process.env['PATH'], args = [] as string[] } = {}): Outcome {
  return spawnSync(process.execPath, [inside('scripts', 'build-cuda.mjs'), ...args], {
    encoding: 'utf8',
    env: { PATH, CUDA_HOME: home },
  });
}

/** What nvcc was told to make of each source, and of `library` last. */
function targetsOf(home: string): Map<string, string> {
  const calls = readFileSync(path.join(home, 'calls'), 'utf8').trim().split('\n');
  return new Map(
    calls.map((call) => [
      / -c .*\/(\w+)\.(?:cu|cc) /.exec(call)?.[1] ?? 'library',
      [...call.matchAll(/code=sm_(\w+)/g)].map((match) => match[1]).join(' '),
    ]),
  );
}

describe('scripts/build-cuda.mjs', () => {
  it('builds for sm_90a beside the addon, and again only where something changed', () => {
    const home = writeToolkit(inside('cuda'), '13.0');
    const first = build(home);
    expect(first.stderr).toMatch(/^Built libfdq_cuda\.so with CUDA 13\.0 in [\d.]+ s\.\n$/);
    expect(first).toMatchObject({ status: 0, stdout: '' });
    expect(readFileSync(library(), 'utf8')).toBe('made\n');
    const sources = readdirSync(path.join(ROOT, 'custom-ops', 'cuda')).filter((name) =>
      /\.(cu|cc)$/.test(name),
    );
    const targets = targetsOf(home);
    expect([...targets.keys()].sort()).toEqual(
      ['library', ...sources.map((name) => path.parse(name).name)].sort(),
    );
    expect(new Set(targets.values())).toEqual(new Set(['90a']));
    rmSync(path.join(home, 'calls'));
    expect(build(home).status).toBe(0);
    expect(existsSync(path.join(home, 'calls'))).toBe(false);
    // Another release in the same place: nothing that the old one made is kept.
    writeToolkit(home, '13.1');
    expect(build(home).stderr).toContain('with CUDA 13.1');
    expect(targetsOf(home).size).toBe(targets.size);
  });

  it('builds for all devices with --all, except those that the compiler does not know', () => {
    const current = writeToolkit(inside('current'), '12.8');
    expect(build(current, { args: ['--all'] }).stderr).toMatch(/^Built libfdq_cuda\.so with CUDA 12\.8/);
    expect(targetsOf(current).get('weight_only')).toBe('80 89 90a 100a');
    expect(targetsOf(current).get('fp8_linear_sm90')).toBe('90a');
    expect(targetsOf(current).get('library')).toBe('80 89 90a 100a');
    const older = writeToolkit(inside('older'), '12.4');
    expect(build(older, { args: ['--all'] }).stderr).toMatch(
      /^Left out sm_100a: CUDA 12\.4 cannot compile for it, CUDA 12\.8 can\.\nBuilt libfdq_cuda\.so with CUDA 12\.4/,
    );
    expect(targetsOf(older).get('library')).toBe('80 89 90a');
  });

  it('says in a few lines that the compiler is too old, or does not work here', () => {
    const old = build(writeToolkit(inside('old'), '12.2'));
    expect(old).toMatchObject({ status: 1, stdout: '' });
    expect(old.stderr).toMatch(/^Expected CUDA 12\.4 or newer in CUDA_HOME .* but .* is of CUDA 12\.2\.\n/);
    const home = writeToolkit(
      inside('strict'),
      '12.4',
      'echo "error: -- unsupported GNU version!" >&2; exit 1',
    );
    const refused = build(home);
    expect(refused).toMatchObject({ status: 1, stdout: '' });
    expect(refused.stderr.split('\n').slice(0, 2)).toEqual([
      `nvcc of CUDA 12.4 in ${home}/bin does not compile an empty kernel:`,
      'error: -- unsupported GNU version!',
    ]);
    expect(refused.stderr.split('\n')).toHaveLength(5);
    expect(existsSync(library())).toBe(false);
  });

  it('shows the log where the compiler works and a kernel does not compile', () => {
    const compile =
      'case "$*" in *repack_weight.cu*) echo "repack_weight.cu(7): error: expected a ;" >&2; exit 2 ;; esac';
    const { status, stderr } = build(writeToolkit(inside('cuda'), '13.0', compile));
    expect(status).toBe(1);
    expect(stderr).toContain('repack_weight.cu(7): error: expected a ;');
    expect(stderr).toMatch(/Building the CUDA kernels failed \(exit code 2\)\.\n$/);
    expect(existsSync(library())).toBe(false);
  });

  it('builds with ninja where there is no make', () => {
    const home = writeToolkit(inside('cuda'), '13.0');
    const PATH = inside('path');
    for (const name of ['c++', 'ninja']) writeProgram(path.join(PATH, name), 'exit 1');
    writeProgram(path.join(PATH, 'cmake'), `echo "$@" > "${inside('arguments')}"; exit 1`);
    const asked = (): string => {
      build(home, { PATH });
      return readFileSync(inside('arguments'), 'utf8');
    };
    expect(asked()).toContain(' -G Ninja ');
    writeProgram(path.join(PATH, 'make'), 'exit 1');
    expect(asked()).not.toContain('Ninja');
  });

  it('refuses other flags before it looks for anything', () => {
    const { status, stderr } = build('/nowhere', { args: ['--fast'] });
    expect({ status, stderr }).toEqual({ status: 1, stderr: 'Expected --all but received --fast.\n' });
  });
});

describe('custom-ops/cuda/CMakeLists.txt', () => {
  it('refuses a compiler that is too old or does not run, without Node', () => {
    const configure = (nvcc: string): string => {
      const args = ['-S', path.join(ROOT, 'custom-ops', 'cuda'), '-B', inside('build'), `-DFDQ_NVCC=${nvcc}`];
      const { status, stderr } = spawnSync('cmake', args, { encoding: 'utf8' });
      expect(status).toBe(1);
      return stderr.replace(/\s+/g, ' ');
    };
    const old = path.join(writeToolkit(inside('old'), '11.8'), 'bin', 'nvcc');
    expect(configure(old)).toContain(`Expected CUDA 12.4 or newer but ${old} is of CUDA 11.8.`);
    writeFileSync(inside('text'), '');
    expect(configure(inside('text'))).toContain(
      `Expected FDQ_NVCC to name the CUDA compiler but '${inside('text')}`,
    );
  });
});
