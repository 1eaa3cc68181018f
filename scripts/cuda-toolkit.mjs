// Finds the CUDA compiler: one that is installed, or the wheels of cuda-toolkit.txt in custom-ops/build-cuda.
// Run as a program it installs those where needed and prints the path of nvcc.
import { spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { fileURLToPath } from 'node:url';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const MINIMUM = [12, 4];
const ADVICE = `install CUDA ${MINIMUM.join('.')} or newer and set CUDA_HOME to its folder`;

/** What the wheels have to bring; one that was cut short or cleaned up lacks some. */
const WHEEL_FILES = [
  ...['nvcc', 'cudafe++', 'ptxas', 'fatbinary', 'nvlink', 'cuobjdump', 'nvdisasm'].map(
    (name) => `bin/${name}`,
  ),
  ...['nvvm/bin/cicc', 'nvvm/libdevice/libdevice.10.bc'],
  ...['include/cuda_runtime.h', 'include/crt/host_config.h', 'include/cccl/cuda/std/cstdint'],
  ...['lib/libcudart_static.a', 'lib/libcudadevrt.a'],
];

/** Where to look; tests look elsewhere. */
const HERE = {
  environment: process.env,
  platform: process.platform,
  arch: process.arch,
  folder: path.join(root, 'custom-ops', 'build-cuda', 'toolkit'),
  requirements: path.join(root, 'scripts', 'cuda-toolkit.txt'),
  system: '/usr/local/cuda',
  warn: (line) => console.error(line),
};

/** [major, minor] of an nvcc, or `problem`: why it cannot be used. */
function examine(nvcc, environment) {
  const { status, signal, error, stdout, stderr } = spawnSync(nvcc, ['--version'], {
    encoding: 'utf8',
    env: environment,
  });
  const match = status === 0 ? /release (\d+)\.(\d+)/.exec(stdout) : null;
  if (match === null) {
    const [line] = (stderr ?? '').trim().split('\n');
    const reason =
      error?.message ?? [line, `exit code ${status ?? signal}`].find((text) => text !== '') ?? '';
    return { problem: status === 0 ? 'does not tell its version' : `does not run (${reason})` };
  }
  const version = [Number(match[1]), Number(match[2])];
  const isOld = version[0] < MINIMUM[0] || (version[0] === MINIMUM[0] && version[1] < MINIMUM[1]);
  return isOld ? { problem: `is of CUDA ${version.join('.')}` } : { version };
}

function describeInstalled(nvcc, version) {
  return { bin: path.dirname(nvcc), flags: [], version, isPinned: false };
}

/**
 * CUDA_HOME and CUDA_PATH are orders: what they name has to do.
 * @throws Error when it does not
 */
function findNamed({ environment }) {
  const name = ['CUDA_HOME', 'CUDA_PATH'].find((key) => (environment[key] ?? '') !== '');
  if (name === undefined) return undefined;
  const nvcc = path.resolve(environment[name], 'bin', 'nvcc');
  const { version, problem } = existsSync(nvcc) ? examine(nvcc, environment) : { problem: 'does not exist' };
  if (version !== undefined) return describeInstalled(nvcc, version);
  throw new Error(
    `Expected CUDA ${MINIMUM.join('.')} or newer in ${name} (${environment[name]}) but ${nvcc} ${problem}.\n` +
      `  1. Set ${name} to the folder of another CUDA toolkit.\n` +
      `  2. Or unset it: nvcc is then looked for on PATH and in /usr/local/cuda, or installed from PyPI.`,
  );
}

/** The first usable nvcc of PATH and of /usr/local/cuda; those that cannot be used are told to `passedOver`. */
function findOnPath({ environment, system }, passedOver) {
  const folders = (environment.PATH ?? '').split(path.delimiter).filter((name) => name !== '');
  for (const folder of [...folders, path.join(system, 'bin')]) {
    const nvcc = path.resolve(folder, 'nvcc');
    if (!existsSync(nvcc)) continue;
    const { version, problem } = examine(nvcc, environment);
    if (version !== undefined) return describeInstalled(nvcc, version);
    passedOver.push(`${nvcc} ${problem}`);
  }
  return undefined;
}

function describeWheels({ folder, environment }) {
  const home = path.join(folder, 'nvidia', 'cu13');
  const bin = path.join(home, 'bin');
  const { version, problem } = examine(path.join(bin, 'nvcc'), environment);
  if (problem !== undefined) {
    throw new Error(
      `Expected the CUDA compiler of PyPI to run but ${path.join(bin, 'nvcc')} ${problem}.\n` +
        `  1. Delete ${folder} and run again.\n  2. Or ${ADVICE}.`,
    );
  }
  // The wheels keep libraries in lib; the profile of this nvcc looks in lib64.
  return { bin, flags: [`-L${path.join(home, 'lib')}`], version, isPinned: true };
}

function isCurrent({ folder, requirements }) {
  const stamp = path.join(folder, '.fdq-stamp');
  if (!existsSync(stamp) || readFileSync(stamp, 'utf8') !== readFileSync(requirements, 'utf8')) return false;
  return WHEEL_FILES.every((name) => existsSync(path.join(folder, 'nvidia', 'cu13', name)));
}

/** A process that ended and that nobody has waited for has no command line. */
function isRunning(pid) {
  try {
    return readFileSync(`/proc/${pid}/cmdline`).length > 0;
  } catch {
    return false;
  }
}

/** What runs that were killed had begun to install. */
function removeAbandoned(folder) {
  const prefix = `${path.basename(folder)}.part-`;
  for (const name of readdirSync(path.dirname(folder))) {
    if (!name.startsWith(prefix) || isRunning(Number(name.slice(prefix.length)))) continue;
    rmSync(path.join(path.dirname(folder), name), { recursive: true, force: true });
  }
}

/** Runs pip; what it says of a failure is its lines of errors, or else its last ones. */
function runPip(part, { requirements, environment }) {
  const options = ['--quiet', '--no-input', '--disable-pip-version-check', '--no-deps', '--require-hashes'];
  const args = ['-m', 'pip', 'install', ...options, '--target', part, '--requirement', requirements];
  const { status, signal, error, stderr } = spawnSync('python3', args, {
    encoding: 'utf8',
    env: environment,
  });
  if (status === 0) return undefined;
  if (error !== undefined) return error.code === 'ENOENT' ? 'python3 was not found on PATH' : error.message;
  const lines = stderr.trim().split('\n');
  const errors = lines.filter((line) => line.startsWith('ERROR:'));
  const text = (errors.length > 0 ? errors : lines.slice(-3)).join('\n');
  return text === '' ? `pip ended with ${signal ?? `exit code ${status}`}` : text;
}

function install(place) {
  const { folder, requirements, warn } = place;
  mkdirSync(path.dirname(folder), { recursive: true });
  removeAbandoned(folder);
  const part = `${folder}.part-${process.pid}`;
  warn(`Installing the CUDA compiler from PyPI into ${folder} (about 130 MB).`);
  try {
    const problem = runPip(part, place);
    if (problem !== undefined) {
      throw new Error(
        `Installing the CUDA compiler from PyPI failed:\n${problem}\n` +
          '  1. Check that python3 has pip (python3 -m pip --version) and that PyPI can be reached.\n' +
          `  2. Or ${ADVICE}.`,
      );
    }
    const missing = WHEEL_FILES.find((name) => !existsSync(path.join(part, 'nvidia', 'cu13', name)));
    if (missing !== undefined) {
      throw new Error(
        `Expected ${missing} in the wheels of ${requirements} but pip did not install it.\n` +
          `  1. Run again with PIP_NO_CACHE_DIR=1.\n  2. Or ${ADVICE}.`,
      );
    }
    writeFileSync(path.join(part, '.fdq-stamp'), readFileSync(requirements));
    rmSync(folder, { recursive: true, force: true });
    renameSync(part, folder);
  } finally {
    rmSync(part, { recursive: true, force: true });
  }
}

/**
 * The folder of nvcc (and cuobjdump), the flags it needs, its version, and whether it is that of cuda-toolkit.txt.
 * @param options what of HERE is to be otherwise
 * @returns {{ bin: string, flags: string[], version: [number, number], isPinned: boolean }}
 * @throws Error that says what to install
 */
export function findToolkit(options = {}) {
  const place = { ...HERE, ...options };
  const passedOver = [];
  const installed = findNamed(place) ?? findOnPath(place, passedOver);
  if (installed !== undefined) return installed;
  if (!isCurrent(place)) {
    if (place.platform !== 'linux' || place.arch !== 'x64') {
      const found = passedOver.length === 0 ? 'found none' : passedOver.join(' and ');
      throw new Error(
        `Expected CUDA ${MINIMUM.join('.')} or newer on this machine but ${found}.\n` +
          `The wheels of scripts/cuda-toolkit.txt are for Linux on x86-64, not for ${place.platform} on ${place.arch}.\n` +
          '  1. Install the CUDA toolkit of your system.\n  2. Set CUDA_HOME to its folder, or put nvcc on PATH.',
      );
    }
    for (const nvcc of passedOver)
      place.warn(`Passed over: ${nvcc}; CUDA ${MINIMUM.join('.')} is the oldest.`);
    install(place);
  }
  return describeWheels(place);
}

/** Compiles and links an empty kernel for sm_90a. Returns what went wrong, or undefined. */
export function tryToolkit({ bin, flags, version }, environment = process.env) {
  const folder = mkdtempSync(path.join(tmpdir(), 'fdq-nvcc-'));
  try {
    const source = path.join(folder, 'empty.cu');
    writeFileSync(source, '__global__ void empty() {}\n');
    const target = ['-gencode=arch=compute_90a,code=sm_90a', '-shared', '-Xcompiler=-fPIC'];
    const args = [...flags, ...target, '-o', path.join(folder, 'empty.so'), source];
    const { status, error, stdout, stderr } = spawnSync(path.join(bin, 'nvcc'), args, {
      encoding: 'utf8',
      cwd: folder,
      env: environment,
    });
    if (status === 0) return undefined;
    const lines = `${stdout ?? ''}\n${stderr ?? ''}`.split('\n');
    const [line] = lines.filter((text) => /cannot find|error|fatal|not found/i.test(text));
    return (
      `nvcc of CUDA ${version.join('.')} in ${bin} does not compile an empty kernel:\n` +
      `${(line ?? error?.message ?? lines.join('\n')).trim()}\n` +
      "  1. For another host compiler, set NVCC_PREPEND_FLAGS to '-ccbin g++-12', say.\n" +
      `  2. Or install the toolkit again, or another one, and set CUDA_HOME to its folder.`
    );
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  try {
    console.log(path.join(findToolkit().bin, 'nvcc'));
  } catch (error) {
    console.error(error.message);
    process.exitCode = 1;
  }
}
