// Builds the native addon (custom-ops/build) and the command line (dist).
//   --if-needed    only what is older than its sources
//   --addon-only   not the command line: what an installed package needs
// One line on success, the whole log on failure.
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { fileURLToPath } from 'node:url';
import { checkTools } from './native-tools.mjs';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const require = createRequire(import.meta.url);
const ADDON_SOURCES = ['addon', 'cpu', 'include', 'ort', 'CMakeLists.txt'];

/** Digest of the names and contents of files and folders below the root. */
function digest(names, extra) {
  const hash = createHash('sha256').update(extra);
  const visit = (name) => {
    const file = path.join(root, name);
    if (!existsSync(file)) return;
    if (statSync(file).isDirectory()) {
      for (const child of readdirSync(file).sort()) visit(path.join(name, child));
    } else {
      hash.update(`\0${name}\0`).update(readFileSync(file));
    }
  };
  names.forEach(visit);
  return hash.digest('hex');
}

function versionOf(dependency) {
  return require(`${dependency}/package.json`).version;
}

/** Runs a program; its output is shown only when it fails. */
function run(what, command, args) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { cwd: root, stdio: ['ignore', 'pipe', 'pipe'] });
    const log = [];
    child.stdout.on('data', (chunk) => log.push(chunk));
    child.stderr.on('data', (chunk) => log.push(chunk));
    child.on('error', (error) => reject(new Error(`${what}: cannot start ${command}: ${error.message}`)));
    child.on('close', (code, signal) => {
      if (code === 0) return resolve();
      process.stderr.write(Buffer.concat(log));
      reject(new Error(`${what} failed (${signal ?? `exit code ${code}`}); the log is above.`));
    });
  });
}

/** CMake refuses a cache of another folder; one that cmake-js did not configure puts the addon elsewhere. */
function removeForeignCache(folder) {
  const cache = path.join(root, folder, 'CMakeCache.txt');
  if (!existsSync(cache)) return;
  const text = readFileSync(cache, 'utf8');
  const home = `CMAKE_HOME_DIRECTORY:INTERNAL=${path.join(root, 'custom-ops')}\n`;
  if (!text.includes(home) || !text.includes('CMAKE_JS_VERSION')) {
    rmSync(path.join(root, folder), { recursive: true, force: true });
  }
}

const addon = {
  name: 'addon',
  stamp: 'custom-ops/build/.fdq-stamp',
  product: 'custom-ops/build/Release/fdq.node',
  digest: () =>
    digest(
      ADDON_SOURCES.map((name) => path.join('custom-ops', name)),
      [process.arch, versionOf('node-addon-api'), versionOf('node-api-headers')].join(),
    ),
  async build() {
    checkTools();
    const cmakeJs = path.join(path.dirname(require.resolve('cmake-js/package.json')), 'bin', 'cmake-js');
    removeForeignCache('custom-ops/build');
    const folders = ['--directory', 'custom-ops', '--out', 'custom-ops/build'];
    const args = ['build', ...folders, '--target', 'fdq', '--parallel', String(availableParallelism())];
    await run('Building the native addon', process.execPath, [cmakeJs, ...args]);
  },
};

const cli = {
  name: 'command line',
  stamp: 'dist/.fdq-stamp',
  product: 'dist/commands/serve.js',
  digest: () =>
    digest(['src', 'package.json', 'tsconfig.json', 'tsconfig.build.json'], versionOf('typescript')),
  async build() {
    rmSync(path.join(root, 'dist'), { recursive: true, force: true });
    const tsc = require.resolve('typescript/bin/tsc');
    await run('Compiling the command line', process.execPath, [tsc, '-p', 'tsconfig.build.json']);
    await writeManifest();
  },
};

/** Command metadata in one file, so that starting fdq loads only the command that runs. */
async function writeManifest() {
  const { Config } = await import('@oclif/core');
  const manifestPath = path.join(root, 'oclif.manifest.json');
  rmSync(manifestPath, { force: true });
  const config = await Config.load({ root, ignoreManifest: true });
  const own = [...config.plugins.values()].find((plugin) => plugin.root === root);
  writeFileSync(manifestPath, `${JSON.stringify(own.manifest, null, 2)}\n`);
}

function isCurrent(target, wanted) {
  const stamp = path.join(root, target.stamp);
  return (
    existsSync(path.join(root, target.product)) && existsSync(stamp) && readFileSync(stamp, 'utf8') === wanted
  );
}

async function main(args) {
  const unknown = args.find((arg) => !['--if-needed', '--addon-only'].includes(arg));
  if (unknown !== undefined) throw new Error(`Expected --if-needed or --addon-only but received ${unknown}.`);
  const built = [];
  const started = performance.now();
  for (const target of args.includes('--addon-only') ? [addon] : [addon, cli]) {
    const wanted = target.digest();
    if (args.includes('--if-needed') && isCurrent(target, wanted)) continue;
    await target.build();
    mkdirSync(path.dirname(path.join(root, target.stamp)), { recursive: true });
    writeFileSync(path.join(root, target.stamp), wanted);
    built.push(target.name);
  }
  const seconds = ((performance.now() - started) / 1000).toFixed(1);
  if (built.length > 0) console.error(`Built ${built.join(' and ')} in ${seconds} s.`);
}

try {
  await main(process.argv.slice(2));
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
}
