// Runs when the package is installed by npm: builds the addon for this machine. A clone of the repository does
// not need it, because `npm start` and `npm test` build what is missing.
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';
import process from 'node:process';
import { fileURLToPath } from 'node:url';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const isClone = existsSync(path.join(root, 'tsconfig.json'));
if (!isClone) {
  const build = path.join(root, 'scripts', 'build.mjs');
  const { status } = spawnSync(process.execPath, [build, '--addon-only', '--if-needed'], {
    stdio: 'inherit',
  });
  process.exitCode = status ?? 1;
}
