import { execFile } from 'node:child_process';
import { cp, readFile, symlink, writeFile } from 'node:fs/promises';
import path from 'node:path';
import process from 'node:process';
import { describe, expect, it } from 'vitest';
import type { BenchReport } from '../../src/bench/report.js';
import { BIN, cleanEnvironment, ROOT } from '../helpers/cli.js';
import { createTempDir } from '../helpers/temp-dir.js';

const DEMO = path.join(ROOT, 'models', 'demo');
const STEP = 'async step() {';

/** This build with a wait of a share of each step after it. */
async function createSlowBuild(share: number): Promise<string> {
  const dir = await createTempDir();
  for (const name of ['bin', 'dist', 'package.json']) {
    await cp(path.join(ROOT, name), path.join(dir, name), { recursive: true });
  }
  for (const name of ['node_modules', 'custom-ops'])
    await symlink(path.join(ROOT, name), path.join(dir, name));
  const file = path.join(dir, 'dist', 'engine', 'engine.js');
  const source = await readFile(file, 'utf8');
  expect(source).toContain(STEP);
  const slow = `${STEP}
    const began = performance.now();
    await this.undisturbedStep();
    const end = performance.now() + ${share} * (performance.now() - began);
    while (performance.now() < end);
  }
  async undisturbedStep() {`;
  await writeFile(file, source.replace(STEP, slow));
  return path.join(dir, 'bin', 'run.js');
}

/** Compares a build with this one. */
function compare(
  bin: string,
  timeBudget: string,
): Promise<{ readonly code: number; readonly report: BenchReport }> {
  const args = ['bench', DEMO, '-q', 'wint4', '-t', '1', '-p', '0', '--json', '--time-budget', timeBudget];
  const gate = ['--baseline-command', `"${process.execPath}" "${BIN}"`, '--fail-if', 'itl_min > +5%'];
  return new Promise((resolve, reject) => {
    const options = { cwd: ROOT, env: cleanEnvironment(), encoding: 'utf8' } as const;
    execFile(process.execPath, [bin, ...args, ...gate], options, (error, stdout, stderr) => {
      const code = error === null ? 0 : error.code;
      if (typeof code !== 'number' || stdout === '') return reject(new Error(stderr, { cause: error }));
      return resolve({ code, report: (JSON.parse(stdout) as { readonly result: BenchReport }).result });
    });
  });
}

/** Three launches at least, and more until it can tell: 15 seconds on an idle machine. */
describe('fdq bench --baseline-command', () => {
  it('catches a build that is 30 % slower', async () => {
    const { code, report } = await compare(await createSlowBuild(0.3), '500s');
    const reason = report.gate?.checks[0]?.reason;
    expect(report.gate?.verdict, reason).toBe('fail');
    expect(report.gate?.checks[0]?.change, reason).toBeGreaterThan(0.15);
    expect(code).toBe(4);
    expect(report.scenarios[0]?.parameters).toMatchObject({ scheme: 'wint4', threads: 1, n_gen: 128 });
    expect(report.warnings).toEqual([]);
  });

  it('finds nothing worse in the same build', async () => {
    const { report } = await compare(BIN, '15s');
    expect(report.gate?.verdict, report.gate?.checks[0]?.reason).not.toBe('fail');
  });
});
