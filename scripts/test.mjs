// Builds what is out of date, runs the tests and prints `N passed, N failed` as the last line. Arguments go to
// Vitest: `npm test -- test/unit/cli`, `npm test -- -t name`.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { fileURLToPath } from 'node:url';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const require = createRequire(import.meta.url);

function node(script, args, environment = {}) {
  const env = { ...process.env, ...environment };
  return spawnSync(process.execPath, [script, ...args], {
    cwd: root,
    stdio: ['ignore', 'inherit', 'inherit'],
    env,
  });
}

function runTests(args) {
  const folder = mkdtempSync(path.join(tmpdir(), 'fdq-test-'));
  try {
    const countsFile = path.join(folder, 'counts.json');
    const vitest = path.join(path.dirname(require.resolve('vitest/package.json')), 'vitest.mjs');
    const reporter = path.join(root, 'scripts', 'test-reporter.mjs');
    const { status } = node(vitest, ['run', '--reporter', reporter, ...args], {
      FDQ_TEST_COUNTS: countsFile,
    });
    return { status, counts: readCounts(countsFile) };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** A run that died before its end has no counts: that is one failure. */
function readCounts(file) {
  try {
    return JSON.parse(readFileSync(file, 'utf8'));
  } catch {
    return { passed: 0, failed: 1, skipped: 0 };
  }
}

function main(args) {
  const build = node(path.join(root, 'scripts', 'build.mjs'), ['--if-needed']);
  const { status, counts } =
    build.status === 0 ? runTests(args) : { status: 1, counts: { passed: 0, failed: 1, skipped: 0 } };
  const { passed, failed, skipped } = counts;
  const isGreen = status === 0 && failed === 0 && passed > 0;
  console.log(`${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`);
  return isGreen ? 0 : 1;
}

process.exitCode = main(process.argv.slice(2));
