import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { cp, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import type { BenchReport } from '../../src/bench/report.js';
import { BIN, cleanEnvironment, ROOT, runCli } from '../helpers/cli.js';
import { createTempDir } from '../helpers/temp-dir.js';

const DEMO = path.join(ROOT, 'models', 'demo');
const TEXT = path.join(DEMO, 'eval.txt');

describe('fdq bench quality', () => {
  it('prints a report for programs, and 4 when a condition holds', async () => {
    const { code, stdout, stderr } = await runCli([
      ...['bench', 'quality', DEMO, '--quantization', 'none,wint4', '--dtype', 'float32'],
      ...['--text', TEXT, '--max-windows', '4', '--fail-if', 'kl[wint4] > 0.001', '--json'],
    ]);
    expect(code, stderr).toBe(4);
    const { status, result } = JSON.parse(stdout) as {
      readonly status: number;
      readonly result: BenchReport;
    };
    expect(status).toBe(4);
    expect(result).toMatchObject({ schema: 'fdq-bench/1', kind: 'quality', partial: false });
    expect(result.scenarios.map(({ name }) => name)).toEqual([
      'none kv=float32 dtype=float32',
      'wint4 kv=float32 dtype=float32',
    ]);
    const [exact, rounded] = result.scenarios.map(
      ({ metrics }) => metrics.find(({ id }) => id === 'kl')?.value ?? NaN,
    );
    expect(exact).toBe(0);
    expect(rounded).toBeGreaterThan(0.001);
    expect(rounded).toBeLessThan(0.02);
    expect(stderr).toContain('Score text');
  });

  it('names the line of a prompt that is none, before a model is loaded', async () => {
    const prompts = path.join(await createTempDir(), 'prompts.jsonl');
    await writeFile(prompts, '{"prompt": "1 + 1 =", "expected": "2"}\n{"prompt": "1 + 2 ="}\n');
    const { code, stdout, stderr } = await runCli(['bench', 'quality', DEMO, '--prompts', prompts]);
    expect(code).toBe(2);
    expect(stdout).toBe('');
    expect(stderr).toContain('line 2');
  });

  it.each([
    ['kl > 0.01', ['--reference', 'none'], '--reference none leaves out'],
    ['sqnr < 15dB', [], 'layers are measured with --layers only'],
    // The folder has a text and no prompts.
    ['accuracy < 90%', [], 'there are no prompts to answer'],
  ])('refuses %s before a model is loaded where flags or inputs leave it out: %j', async (...row) => {
    const [condition, flags, reason] = row;
    const folder = await createTempDir();
    await cp(DEMO, folder, { recursive: true });
    await rm(path.join(folder, 'eval.jsonl'));
    const args = ['bench', 'quality', folder, ...flags, '--fail-if', condition];
    const { code, stdout, stderr } = await runCli(args);
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
    expect(stderr).toContain(`which is not measured: ${reason}`);
    expect(stderr).not.toContain('Load models');
  });

  it('prints what it has after Ctrl-C, and ends with 130', async () => {
    const args = ['bench', 'quality', DEMO, '--quantization', 'wint8', '--text', TEXT, '--json'];
    const child = spawn(process.execPath, [BIN, ...args, '--window', '512'], {
      env: cleanEnvironment(),
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    onTestFinished(() => void child.kill('SIGKILL'));
    let [stdout, stderr] = ['', ''];
    child.stdout.on('data', (chunk: Buffer) => (stdout += chunk.toString()));
    child.stderr.on('data', (chunk: Buffer) => {
      stderr += chunk.toString();
      // Loading is done: scoring begins.
      if (stderr.includes('Load models:') && !child.killed) child.kill('SIGINT');
    });
    const [code] = (await once(child, 'close')) as [number | null];
    expect(code, stderr).toBe(130);
    const { result } = JSON.parse(stdout) as { readonly result: BenchReport };
    expect(result).toMatchObject({ kind: 'quality', partial: true });
  });
});
