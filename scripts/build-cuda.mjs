// Builds libfdq_cuda.so (custom-ops/build-cuda) and puts it beside the addon, where fdq looks for it.
//   --all    for sm_80, sm_89, sm_90a and sm_100a instead of sm_90a alone
import { spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { fileURLToPath } from 'node:url';
import { findToolkit, tryToolkit } from './cuda-toolkit.mjs';
import { checkTools, generatorArgs } from './native-tools.mjs';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const source = path.join(root, 'custom-ops', 'cuda');

/** Runs cmake and returns what it printed; `explain` may know a reason that is shorter than that. */
function cmake(args, explain) {
  const { status, error, stdout, stderr } = spawnSync('cmake', args, {
    encoding: 'utf8',
    maxBuffer: 1 << 28,
  });
  if (status === 0) return stdout;
  const reason = explain();
  if (reason !== undefined) throw new Error(reason);
  process.stderr.write(`${stdout ?? ''}${stderr ?? ''}`);
  throw new Error(`Building the CUDA kernels failed (${error?.message ?? `exit code ${status}`}).`);
}

/** CMake refuses the cache of a folder that was copied or moved. */
function removeForeignCache(build) {
  const cache = path.join(build, 'CMakeCache.txt');
  if (!existsSync(cache) || readFileSync(cache, 'utf8').includes(`CMAKE_HOME_DIRECTORY:INTERNAL=${source}\n`))
    return;
  rmSync(build, { recursive: true, force: true });
}

function main(args) {
  const unknown = args.find((arg) => arg !== '--all');
  if (unknown !== undefined) throw new Error(`Expected --all but received ${unknown}.`);
  checkTools();
  const started = performance.now();
  const toolkit = findToolkit();
  const { bin, flags, version, isPinned } = toolkit;
  const explain = () => tryToolkit(toolkit);
  const all = args.includes('--all');
  const build = path.join(root, 'custom-ops', 'build-cuda', all ? 'all' : 'sm_90a');
  removeForeignCache(build);
  const configured = cmake(
    [
      ...['-S', source, '-B', build, ...generatorArgs(), `-DFDQ_CUDA_ALL=${all ? 'ON' : 'OFF'}`],
      ...[`-DFDQ_NVCC=${path.join(bin, 'nvcc')}`, `-DFDQ_NVCC_FLAGS=${flags.join(';')}`],
      // Another compiler may warn of more.
      `-DFDQ_CUDA_STRICT=${isPinned ? 'ON' : 'OFF'}`,
    ],
    explain,
  );
  for (const [, leftOut] of configured.matchAll(/^-- (Left out .*)$/gm)) console.error(leftOut);
  cmake(['--build', build, '--parallel', String(availableParallelism())], explain);
  const target = path.join(root, 'custom-ops', 'build', 'Release', 'libfdq_cuda.so');
  mkdirSync(path.dirname(target), { recursive: true });
  // A process may have the old one open: it keeps that file, and the next one gets the new.
  rmSync(target, { force: true });
  copyFileSync(path.join(build, 'libfdq_cuda.so'), target);
  const seconds = ((performance.now() - started) / 1000).toFixed(1);
  console.error(`Built libfdq_cuda.so with CUDA ${version.join('.')} in ${seconds} s.`);
}

try {
  main(process.argv.slice(2));
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
}
