// Finds the CUDA compiler: one that is installed, or the wheels of cuda-toolkit.txt in custom-ops/build-cuda.
// Run as a program it installs those where needed and prints the path of nvcc.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import process from 'node:process';
import { fileURLToPath } from 'node:url';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const requirements = path.join(root, 'scripts', 'cuda-toolkit.txt');
const folder = path.join(root, 'custom-ops', 'build-cuda', 'toolkit');
const MINIMUM = [12, 4];

/** The release that `nvcc --version` names, as [major, minor]; undefined when it does not run. */
function versionOf(nvcc) {
  const { status, stdout } = spawnSync(nvcc, ['--version'], { encoding: 'utf8' });
  const match = status === 0 ? /release (\d+)\.(\d+)/.exec(stdout) : null;
  return match === null ? undefined : [Number(match[1]), Number(match[2])];
}

function isNewEnough(version) {
  const [major, minor] = version ?? [0, 0];
  return major > MINIMUM[0] || (major === MINIMUM[0] && minor >= MINIMUM[1]);
}

/** Places of nvcc in the order of preference. */
export function candidates(environment) {
  const homes = [environment.CUDA_HOME, environment.CUDA_PATH].filter(
    (home) => home !== undefined && home !== '',
  );
  const folders = (environment.PATH ?? '').split(path.delimiter).filter((name) => name !== '');
  return [
    ...homes.map((home) => path.join(home, 'bin', 'nvcc')),
    ...folders.map((name) => path.join(name, 'nvcc')),
  ];
}

/** @returns {{ bin: string, flags: string[] } | undefined} */
function findInstalled(environment) {
  const nvcc = candidates(environment).find((file) => existsSync(file) && isNewEnough(versionOf(file)));
  return nvcc === undefined ? undefined : { bin: path.dirname(nvcc), flags: [] };
}

function wheels() {
  const home = path.join(folder, 'nvidia', 'cu13');
  // The wheels keep libraries in lib; the profile of this nvcc looks in lib64.
  return { bin: path.join(home, 'bin'), flags: [`-L${path.join(home, 'lib')}`] };
}

function isCurrent() {
  const stamp = path.join(folder, '.fdq-stamp');
  return existsSync(stamp) && readFileSync(stamp, 'utf8') === readFileSync(requirements, 'utf8');
}

function install() {
  if (process.platform !== 'linux' || process.arch !== 'x64') {
    throw new Error(
      `Expected CUDA ${MINIMUM.join('.')} or newer on this machine (${process.platform} ${process.arch}) but found none.\n` +
        '  1. Install the CUDA toolkit of your system.\n  2. Set CUDA_HOME to its folder, or put nvcc on PATH.',
    );
  }
  const part = `${folder}.part`;
  rmSync(part, { recursive: true, force: true });
  mkdirSync(path.dirname(folder), { recursive: true });
  const options = ['--quiet', '--disable-pip-version-check', '--no-deps', '--require-hashes'];
  const args = ['-m', 'pip', 'install', ...options, '--target', part, '--requirement', requirements];
  const { status, error, stderr } = spawnSync('python3', args, { encoding: 'utf8' });
  if (status !== 0) {
    throw new Error(
      `Installing the CUDA compiler from PyPI failed:\n${error?.message ?? stderr}\n` +
        '  1. Check that python3 has pip (python3 -m pip --version) and that PyPI can be reached.\n' +
        `  2. Or install CUDA ${MINIMUM.join('.')} or newer and set CUDA_HOME.`,
    );
  }
  writeFileSync(path.join(part, '.fdq-stamp'), readFileSync(requirements));
  rmSync(folder, { recursive: true, force: true });
  renameSync(part, folder);
}

/**
 * The folder of nvcc (and cuobjdump) and the flags it needs.
 * @throws Error that says what to install
 */
export function findToolkit(environment = process.env) {
  const installed = findInstalled(environment);
  if (installed !== undefined) return installed;
  if (!isCurrent()) install();
  return wheels();
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  try {
    console.log(path.join(findToolkit().bin, 'nvcc'));
  } catch (error) {
    console.error(error.message);
    process.exitCode = 1;
  }
}
