import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import {
  type CudaToolkit,
  type ToolkitPlace,
  findToolkit,
  tryToolkit,
} from '../../../scripts/cuda-toolkit.mjs';
import { writeProgram, writeToolkit } from '../../helpers/fake-programs.js';
import { createTempDir } from '../../helpers/temp-dir.js';

/** A pip that installs a whole toolkit, whose nvcc is of CUDA 13.0. */
const PIP = `
while [ $# -gt 0 ]; do if [ "$1" = --target ]; then target=$2; fi; shift; done
home=$target/nvidia/cu13
mkdir -p "$home/bin" "$home/nvvm/bin" "$home/nvvm/libdevice" "$home/include/crt" "$home/include/cccl/cuda/std" \\
  "$home/lib"
for name in cudafe++ ptxas fatbinary nvlink cuobjdump nvdisasm; do : > "$home/bin/$name"; done
for name in nvvm/bin/cicc nvvm/libdevice/libdevice.10.bc include/cuda_runtime.h include/crt/host_config.h \\
  include/cccl/cuda/std/cstdint lib/libcudart_static.a lib/libcudadevrt.a; do : > "$home/$name"; done
printf '#!/bin/sh\\necho "Cuda compilation tools, release 13.0, V13.0.88"\\n' > "$home/bin/nvcc"
chmod +x "$home/bin/nvcc"`;

let folder: string;
let warnings: string[];
beforeEach(async () => {
  folder = await createTempDir();
  warnings = [];
  mkdirSync(path.join(folder, 'path'));
  writeFileSync(path.join(folder, 'requirements.txt'), 'nvidia-cuda-nvcc==13.0.88\n');
});

const inside = (...names: string[]): string => path.join(folder, ...names);

function find(environment: Record<string, string> = {}, options: Partial<ToolkitPlace> = {}): CudaToolkit {
  return findToolkit({
    environment: { PATH: `${inside('path')}:/usr/bin:/bin`, ...environment },
    platform: 'linux',
    arch: 'x64',
    folder: inside('build', 'toolkit'),
    requirements: inside('requirements.txt'),
    system: inside('system'),
    warn: (line) => warnings.push(line),
    ...options,
  });
}

const withPip = (body: string): string => writeProgram(inside('path', 'python3'), body);

describe('an installed CUDA toolkit', () => {
  it.each(['12.4', '12.8', '13.0'])('of CUDA %s is taken from CUDA_HOME', (release) => {
    const home = writeToolkit(inside('cuda'), release);
    expect(find({ CUDA_HOME: home, CUDA_PATH: '/nowhere' })).toEqual({
      bin: path.join(home, 'bin'),
      flags: [],
      version: release.split('.').map(Number),
      isPinned: false,
    });
  });

  it('is taken from CUDA_PATH, then from PATH, then from the usual folder', () => {
    const system = writeToolkit(inside('system'), '12.5');
    expect(find().bin).toBe(path.join(system, 'bin'));
    const onPath = writeToolkit(inside('on-path'), '12.6');
    const PATH = `${inside('none')}:${path.join(onPath, 'bin')}:/usr/bin:/bin`;
    expect(find({ PATH }).bin).toBe(path.join(onPath, 'bin'));
    const named = writeToolkit(inside('named'), '13.1');
    expect(find({ PATH, CUDA_HOME: '', CUDA_PATH: named }).bin).toBe(path.join(named, 'bin'));
  });

  it('is refused where CUDA_HOME names one that is too old, absent or broken', () => {
    const old = writeToolkit(inside('old'), '12.3');
    expect(() => find({ CUDA_HOME: old })).toThrow(
      new Error(
        `Expected CUDA 12.4 or newer in CUDA_HOME (${old}) but ${old}/bin/nvcc is of CUDA 12.3.\n` +
          '  1. Set CUDA_HOME to the folder of another CUDA toolkit.\n' +
          '  2. Or unset it: nvcc is then looked for on PATH and in /usr/local/cuda, or installed from PyPI.',
      ),
    );
    expect(() => find({ CUDA_PATH: inside('none') })).toThrow(
      /in CUDA_PATH .*none\/bin\/nvcc does not exist/,
    );
    const broken = inside('broken');
    writeProgram(path.join(broken, 'bin', 'nvcc'), 'echo "libc.so.9: cannot open" >&2; exit 127');
    expect(() => find({ CUDA_HOME: broken })).toThrow(/nvcc does not run \(libc.so.9: cannot open\)/);
    writeProgram(path.join(broken, 'bin', 'nvcc'), 'kill -9 $$');
    expect(() => find({ CUDA_HOME: broken })).toThrow(/nvcc does not run \(exit code SIGKILL\)/);
    writeProgram(path.join(broken, 'bin', 'nvcc'), 'echo hello');
    expect(() => find({ CUDA_HOME: broken })).toThrow(/nvcc does not tell its version/);
    writeFileSync(path.join(broken, 'bin', 'nvcc'), 'not a program', { mode: 0o644 });
    rmSync(path.join(broken, 'bin', 'nvcc'));
    writeFileSync(path.join(broken, 'bin', 'nvcc'), '', { mode: 0o644 });
    expect(() => find({ CUDA_HOME: broken })).toThrow(/nvcc does not run \(spawnSync .*EACCES\)/);
    expect(existsSync(inside('build'))).toBe(false);
  });

  it('that is too old on PATH is passed over by name', () => {
    const old = writeToolkit(inside('old'), '11.8');
    withPip(PIP);
    const PATH = `${inside('path')}:${path.join(old, 'bin')}:/usr/bin:/bin`;
    expect(find({ PATH })).toMatchObject({ version: [13, 0], isPinned: true });
    expect(warnings[0]).toBe(`Passed over: ${old}/bin/nvcc is of CUDA 11.8; CUDA 12.4 is the oldest.`);
  });

  it('has to be there where the wheels are for another processor', () => {
    withPip('echo called > "$0.called"');
    expect(() => find({}, { arch: 'arm64' })).toThrow(
      'Expected CUDA 12.4 or newer on this machine but found none.\n' +
        'The wheels of scripts/cuda-toolkit.txt are for Linux on x86-64, not for linux on arm64.',
    );
    const old = writeToolkit(inside('old'), '11.8');
    const PATH = path.join(old, 'bin');
    expect(() => find({ PATH }, { arch: 'arm64' })).toThrow(/but .*old\/bin\/nvcc is of CUDA 11\.8\.\n/);
    const home = writeToolkit(inside('cuda'), '12.9');
    expect(find({ CUDA_HOME: home }, { arch: 'arm64' }).version).toEqual([12, 9]);
    expect(existsSync(inside('path', 'python3.called'))).toBe(false);
  });
});

describe('the CUDA compiler of PyPI', () => {
  const home = (): string => inside('build', 'toolkit', 'nvidia', 'cu13');

  it('is installed once, and again when the list changes or a file is gone', () => {
    withPip(`echo x >> "${inside('calls')}"\n${PIP}`);
    const calls = (): number => readFileSync(inside('calls'), 'utf8').length / 2;
    expect(find()).toEqual({
      bin: path.join(home(), 'bin'),
      flags: [`-L${path.join(home(), 'lib')}`],
      version: [13, 0],
      isPinned: true,
    });
    expect(warnings).toEqual([expect.stringContaining('Installing the CUDA compiler from PyPI into')]);
    find();
    expect(calls()).toBe(1);
    rmSync(path.join(home(), 'nvvm', 'bin', 'cicc'));
    find();
    expect(calls()).toBe(2);
    expect(existsSync(path.join(home(), 'nvvm', 'bin', 'cicc'))).toBe(true);
    writeFileSync(inside('requirements.txt'), 'nvidia-cuda-nvcc==13.0.89\n');
    find();
    expect(calls()).toBe(3);
    expect(readdirSync(inside('build'))).toEqual(['toolkit']);
  });

  it.each([
    [
      'no network',
      'echo "WARNING: Retrying" >&2; echo "ERROR: No matching distribution" >&2; exit 1',
      'ERROR: No',
    ],
    [
      'no pip',
      'echo "/usr/bin/python3: No module named pip" >&2; exit 1',
      '/usr/bin/python3: No module named pip',
    ],
    ['a killed pip', 'kill -9 $$', 'pip ended with SIGKILL'],
  ])('leaves nothing behind after %s', (_name, body, said) => {
    // What a killed run left, of a process that is gone: Linux gives no such number.
    mkdirSync(inside('build', 'toolkit.part-99999999', 'nvidia'), { recursive: true });
    withPip(`${PIP}\n${body}`);
    expect(() => find()).toThrow(`Installing the CUDA compiler from PyPI failed:\n${said}`);
    expect(() => find()).toThrow(/1\. Check that python3 has pip .*\n {2}2\. Or install CUDA 12\.4 or newer/);
    expect(readdirSync(inside('build'))).toEqual([]);
    withPip(PIP);
    expect(find().isPinned).toBe(true);
  });

  it('keeps a whole toolkit whose successor cannot be installed from being taken for it', () => {
    withPip(PIP);
    find();
    writeFileSync(inside('requirements.txt'), 'nvidia-cuda-nvcc==13.0.89\n');
    withPip('exit 1');
    expect(() => find()).toThrow('pip ended with exit code 1');
    expect(() => find()).toThrow('pip ended with exit code 1');
  });

  it('names python3 where there is none, and what the wheels lack', () => {
    expect(() => find({ PATH: inside('path') })).toThrow('python3 was not found on PATH');
    withPip(`${PIP}\nrm "$home/bin/ptxas"`);
    expect(() => find()).toThrow(/^Expected bin\/ptxas in the wheels of .* but pip did not install it/);
    expect(readdirSync(inside('build'))).toEqual([]);
    withPip(`${PIP}\necho 'exit 1' > "$home/bin/nvcc"`);
    expect(() => find()).toThrow(/^Expected the CUDA compiler of PyPI to run but .*nvcc does not run/);
  });

  it('leaves alone what another run is installing', () => {
    const other = inside('build', `toolkit.part-${process.ppid}`);
    mkdirSync(other, { recursive: true });
    withPip(PIP);
    find();
    expect(readdirSync(inside('build')).sort()).toEqual(['toolkit', path.basename(other)]);
  });
});

describe('tryToolkit', () => {
  const toolkit = (home: string): CudaToolkit => ({
    bin: path.join(home, 'bin'),
    flags: ['-L/somewhere'],
    version: [12, 4],
    isPinned: false,
  });

  it('compiles and links an empty kernel with the flags of the toolkit', () => {
    const home = writeToolkit(inside('cuda'), '12.4');
    expect(tryToolkit(toolkit(home))).toBeUndefined();
    expect(readFileSync(path.join(home, 'calls'), 'utf8')).toMatch(
      /^-L\/somewhere -gencode=arch=compute_90a,code=sm_90a -shared .*empty\.cu\n$/,
    );
  });

  it.each([
    [
      'host compiler',
      'echo "host_config.h:143: error: unsupported GNU version" >&2',
      'unsupported GNU version',
    ],
    [
      'runtime',
      'echo "cannot find -lcudart_static" >&2; echo "collect2: error: ld" >&2',
      'cannot find -lcudart',
    ],
    ['part', 'echo "sh: 1: cicc: not found" >&2', 'cicc: not found'],
  ])('says in one line which %s is at fault', (_what, compile, reason) => {
    const home = writeToolkit(inside('cuda'), '12.4', `echo "In file included from" >&2; ${compile}; exit 1`);
    const lines = tryToolkit(toolkit(home))!.split('\n');
    expect(lines[0]).toBe(`nvcc of CUDA 12.4 in ${home}/bin does not compile an empty kernel:`);
    expect(lines[1]).toContain(reason);
    expect(lines[2]).toContain("NVCC_PREPEND_FLAGS to '-ccbin g++-12'");
    expect(lines).toHaveLength(4);
  });
});
