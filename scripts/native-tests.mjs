// Builds the C++ test executables and prints their paths, one a line. With --sanitize they are built with
// AddressSanitizer and UndefinedBehaviorSanitizer; with --run they are run as well.
import { execFileSync, spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import path from 'node:path';
import process from 'node:process';
import { fileURLToPath } from 'node:url';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const source = path.join(root, 'custom-ops');
const sanitize = process.argv.includes('--sanitize');
const build = path.join(source, sanitize ? 'build-asan' : 'build-tests');

function cmake(args) {
  const result = spawnSync('cmake', args, { encoding: 'utf8' });
  if (result.status === 0) return;
  process.stderr.write(`${result.stdout ?? ''}${result.stderr ?? result.error}\n`);
  process.exit(1);
}

const targets = readdirSync(path.join(root, 'test', 'native', 'cpp'))
  .filter((name) => name.endsWith('_test.cc'))
  .map((name) => name.slice(0, -'.cc'.length));
cmake(['-S', source, '-B', build, '-DFDQ_TESTS=ON', `-DFDQ_SANITIZE=${sanitize ? 'ON' : 'OFF'}`]);
cmake(['--build', build, '--parallel', '2', '--target', ...targets]);
const executables = targets.map((name) => path.join(build, name));
if (process.argv.includes('--run')) {
  for (const executable of executables) {
    console.log(path.basename(executable));
    execFileSync(executable, { stdio: ['ignore', 'inherit', 'inherit'] });
  }
} else {
  console.log(executables.join('\n'));
}
