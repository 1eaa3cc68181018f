// Checks, without a GPU, what fdq relies on of ONNX Runtime's CUDA execution provider: the provider of the PyPI
// wheel runs beside npm's ONNX Runtime on libraries that only pretend to be CUDA. See docs/cuda.md.
import { spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { fileURLToPath } from 'node:url';
import { findToolkit } from './cuda-toolkit.mjs';
import { checkTools } from './native-tools.mjs';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const requirements = path.join(root, 'scripts', 'cuda-provider.txt');
const source = path.join(root, 'custom-ops');
const build = path.join(root, 'custom-ops', 'build-cuda', 'provider-check');
const wheel = path.join(root, 'custom-ops', 'build-cuda', 'provider');
const LIBRARIES = ['libonnxruntime_providers_cuda.so', 'libonnxruntime_providers_shared.so'];
const SYSTEM_LIBRARY = /^(lib(c|m|dl|rt|pthread|stdc\+\+|gcc_s)|ld-linux-x86-64)\.so/;

/** Output of a program; its errors are shown only when it fails. */
function run(program, args, problem) {
  const { status, error, stdout, stderr } = spawnSync(program, args, {
    encoding: 'utf8',
    maxBuffer: 1 << 28,
  });
  if (status === 0) return stdout;
  const reason = error?.message ?? `${stdout}${stderr}`.trim();
  throw new Error(`${problem}\n${reason}`);
}

/** The provider is of the same release as the ONNX Runtime that loads it. */
function checkVersion(onnxruntime) {
  const wanted = JSON.parse(readFileSync(path.join(onnxruntime, 'package.json'), 'utf8')).version;
  const pinned = /==(\S+)/.exec(readFileSync(requirements, 'utf8'))?.[1];
  if (pinned !== wanted) {
    throw new Error(
      `Expected the CUDA provider of ONNX Runtime ${wanted} but scripts/cuda-provider.txt pins ${pinned}.\n` +
        '  1. Write the version and the hash of its cp312 manylinux wheel there (python3 -m pip hash FILE).',
    );
  }
}

function installProvider() {
  const stamp = path.join(wheel, '.fdq-stamp');
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === readFileSync(requirements, 'utf8')) return;
  const part = `${wheel}.part`;
  rmSync(part, { recursive: true, force: true });
  mkdirSync(part, { recursive: true });
  const platform = ['--python-version', '3.12', '--platform', 'manylinux_2_28_x86_64'];
  const options = [
    '--quiet',
    '--disable-pip-version-check',
    '--no-cache-dir',
    '--no-deps',
    '--require-hashes',
  ];
  run(
    'python3',
    [
      ...['-m', 'pip', 'download', ...options, '--only-binary=:all:', ...platform],
      ...['--dest', part, '--requirement', requirements],
    ],
    'Downloading the CUDA provider from PyPI failed; python3 needs pip.',
  );
  const file = readdirSync(part).find((name) => name.endsWith('.whl'));
  const extract =
    'import shutil, sys, zipfile\n' +
    'archive = zipfile.ZipFile(sys.argv[1])\n' +
    'for name in sys.argv[3:]:\n' +
    '    with archive.open("onnxruntime/capi/" + name) as source, open(sys.argv[2] + "/" + name, "wb") as target:\n' +
    '        shutil.copyfileobj(source, target)\n';
  run(
    'python3',
    ['-c', extract, path.join(part, file), part, ...LIBRARIES],
    'The wheel of the CUDA provider is not what was expected.',
  );
  rmSync(path.join(part, file));
  writeFileSync(path.join(part, '.fdq-stamp'), readFileSync(requirements));
  rmSync(wheel, { recursive: true, force: true });
  renameSync(part, wheel);
}

/**
 * Libraries the provider needs that are not the system's, each with the symbols it takes from it.
 * `needed` is the output of `readelf -d`, `symbols` that of `nm -D --undefined-only`. Symbols without a version
 * are those of the driver.
 * @returns {Map<string, string[]>}
 */
export function fakeLibraries(needed, symbols) {
  const names = [...needed.matchAll(/\(NEEDED\).*\[(.+)\]/g)].map(([, name]) => name);
  const libraries = new Map(names.filter((name) => !SYSTEM_LIBRARY.test(name)).map((name) => [name, []]));
  for (const [, symbol, version] of symbols.matchAll(/ U (\w+)(?:@+(\S+))?$/gm)) {
    const driver = version === undefined && /^cu[A-Z]/.test(symbol) ? 'libcuda.so.1' : undefined;
    libraries.get(version ?? driver)?.push(symbol);
  }
  return libraries;
}

/**
 * Stubs for the symbols of one library. Those of the runtime say that they are not supported and give way to
 * what fake_*.cc define; those of cuBLAS succeed, and what they create is a handle.
 */
export function stubSource(library, symbols) {
  const isRuntime = library.startsWith('libcudart');
  const body = (symbol) => {
    if (isRuntime)
      return `() { std::fputs("the fake CUDA runtime has no ${symbol}\\n", stderr); return 801; }`;
    if (/Create/.test(symbol)) return '(void** handle) { static char made; *handle = &made; return 0; }';
    return '() { return 0; }';
  };
  const functions = symbols.map((symbol) => `__attribute__((weak)) int ${symbol}${body(symbol)}\n`);
  return `#include <cstdio>\nextern "C" {\n${functions.join('')}}\n`;
}

function writeStubs(folder) {
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  const provider = path.join(wheel, LIBRARIES[0]);
  const problem = 'Reading the symbols of the CUDA provider failed; readelf and nm are part of binutils.';
  const needed = run('readelf', ['-d', provider], problem);
  const symbols = run('nm', ['-D', '--undefined-only', provider], problem);
  for (const [library, names] of fakeLibraries(needed, symbols)) {
    writeFileSync(path.join(folder, `${library}.cc`), stubSource(library, names));
    if (library !== 'libcuda.so.1')
      writeFileSync(path.join(folder, `${library}.map`), `${library} { *; };\n`);
  }
}

/** ONNX Runtime looks for providers beside itself. */
function placeTogether(onnxruntime, folder) {
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  const binaries = path.join(onnxruntime, 'bin');
  const version = readdirSync(binaries).find((name) => name.startsWith('napi-v'));
  const library = path.join(binaries, version, 'linux', 'x64', 'libonnxruntime.so.1');
  symlinkSync(library, path.join(folder, path.basename(library)));
  for (const name of LIBRARIES) symlinkSync(path.join(wheel, name), path.join(folder, name));
  return path.join(folder, path.basename(library));
}

function main() {
  if (process.platform !== 'linux' || process.arch !== 'x64') {
    console.log(`check:cuda-provider skipped: not for ${process.platform} on ${process.arch}`);
    return 0;
  }
  checkTools();
  const onnxruntime = path.dirname(createRequire(import.meta.url).resolve('onnxruntime-node/package.json'));
  checkVersion(onnxruntime);
  const include = path.join(findToolkit().bin, '..', 'include');
  installProvider();
  const stubs = path.join(build, 'stubs');
  writeStubs(stubs);
  const library = placeTogether(onnxruntime, path.join(build, 'onnxruntime'));
  const problem = 'Building the provider check failed.';
  const settings = ['-DFDQ_TESTS=ON', `-DFDQ_PROVIDER_STUBS=${stubs}`, `-DFDQ_CUDA_INCLUDE=${include}`];
  run('cmake', ['-S', source, '-B', build, ...settings], problem);
  const targets = ['provider_check', 'fdq_cuda_emulated_library'];
  run('cmake', ['--build', build, '--parallel', '2', '--target', ...targets], problem);
  const scratch = mkdtempSync(path.join(tmpdir(), 'fdq-provider-'));
  try {
    const kernels = path.join(build, 'libfdq_cuda_emulated_library.so');
    const environment = { ...process.env, FDQ_CUDA_LIBRARY: kernels };
    const program = path.join(build, 'cuda', 'provider-check', 'provider_check');
    return spawnSync(program, [library, scratch], { stdio: 'inherit', env: environment }).status ?? 1;
  } finally {
    rmSync(scratch, { recursive: true });
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  try {
    process.exitCode = main();
  } catch (error) {
    console.error(error.message);
    process.exitCode = 1;
  }
}
