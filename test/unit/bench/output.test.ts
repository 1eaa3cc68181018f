import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import process from 'node:process';
import { Config, Errors } from '@oclif/core';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { openBenchOutput, type OutputValues } from '../../../src/bench/output.js';
import type { BenchReport, GateResult } from '../../../src/bench/report.js';
import { BaseCommand } from '../../../src/cli/base-command.js';
import { UserError } from '../../../src/errors.js';
import { ROOT } from '../../helpers/cli.js';
import { createTempDir } from '../../helpers/temp-dir.js';
import { qualityReport, sampleCheck } from './report/sample-report.js';

interface Run {
  readonly argv?: readonly string[];
  readonly values?: Partial<OutputValues>;
  readonly environment?: Readonly<Record<string, string>>;
  readonly report?: BenchReport;
  readonly interrupted?: number;
  readonly unsaved?: readonly UserError[];
  /** Between the checks and the end of measuring. */
  readonly meanwhile?: () => Promise<void>;
}

interface Ended {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** A bench command that measured `report`. */
async function run(options: Run): Promise<Ended> {
  const { argv = [], values = {}, environment = {}, report = qualityReport() } = options;
  class Measured extends BaseCommand {
    async run(): Promise<object> {
      await this.parse({ enableJsonFlag: true }, this.argv);
      const output = openBenchOutput(this, { reporter: undefined, html: undefined, ...values }, 'quality');
      await options.meanwhile?.();
      return output.finish(report, options.interrupted, options.unsaved);
    }

    // oclif runs commands through a protected method.
    start(): Promise<unknown> {
      return this._run();
    }
  }
  for (const name of ['GITHUB_ACTIONS', 'GITHUB_STEP_SUMMARY', 'GITHUB_OUTPUT']) {
    vi.stubEnv(name, environment[name]);
  }
  onTestFinished(() => void vi.unstubAllEnvs());
  const texts = { stdout: '', stderr: '' };
  const spies = (['stdout', 'stderr'] as const).map((stream) =>
    vi.spyOn(process[stream], 'write').mockImplementation((text) => {
      texts[stream] += String(text);
      return true;
    }),
  );
  let code = 0;
  try {
    await new Measured([...argv], await Config.load(ROOT)).start();
  } catch (error) {
    if (!(error instanceof Errors.ExitError)) throw error;
    code = error.oclif.exit ?? 0;
  } finally {
    for (const spy of spies) spy.mockRestore();
  }
  return { code, ...texts };
}

function gate(verdict: GateResult['verdict']): GateResult {
  return {
    verdict,
    baseline: null,
    checks: [sampleCheck({ verdict, metric: 'kl', condition: 'kl > 0.02' })],
  };
}

describe('the end of a bench command', () => {
  it.each([
    [
      { 'fail-if': ['decode < 30'] },
      'fdq bench quality does not measure decode, which "decode < 30" is about.',
    ],
    [
      { html: 'a', 'save-baseline': './a' },
      'Expected --save-baseline and --html to write files of their own',
    ],
    [{ html: 'a', reporter: ['csv:a'] }, 'Expected --html and --reporter to write files of their own'],
  ])('refuses %j before anything is measured', async (values, message) => {
    const meanwhile = vi.fn(() => Promise.resolve());
    const { code, stderr } = await run({ values, meanwhile });
    expect(code).toBe(2);
    expect(stderr).toContain(message);
    expect(meanwhile).not.toHaveBeenCalled();
  });

  it('prints a table, and nothing on stderr but warnings', async () => {
    const report = { ...qualityReport(), warnings: ['Few tokens.'] };
    const { code, stdout, stderr } = await run({ report });
    expect(code).toBe(0);
    expect(stdout).toMatch(/^fdq bench: Quality\n/);
    expect(stderr).toBe('Warning: Few tokens.\n');
  });

  it.each([
    ['pass', 0, 'success'],
    ['fail', 4, 'check_failed'],
    ['inconclusive', 5, 'inconclusive'],
  ] as const)(
    'exits for a gate that says %s with %i, with and without --json',
    async (verdict, code, name) => {
      const report = { ...qualityReport(), gate: gate(verdict) };
      const text = await run({ report });
      expect(text.code).toBe(code);
      expect(text.stdout).toContain(`Gate: ${verdict}.`);
      expect(text.stderr.includes(`${verdict}: kl > 0.02 in wint4 t=2: `)).toBe(code !== 0);
      const json = await run({ report, argv: ['--json'] });
      expect(json.code).toBe(code);
      const envelope = JSON.parse(json.stdout) as {
        status: number;
        result: BenchReport;
        error?: { code: string };
      };
      expect(envelope.status).toBe(code);
      expect(envelope.result).toEqual(report);
      expect(envelope.error?.code ?? 'success').toBe(name);
    },
  );

  it('decides with the conditions of the flags, and keeps the report as a baseline', async () => {
    const dir = await createTempDir();
    const file = path.join(dir, 'base.json');
    const saved = await run({ values: { 'save-baseline': file } });
    expect(saved.code).toBe(0);
    const same = await run({ values: { baseline: file, 'fail-if': ['perplexity > +1%'] } });
    expect(same.code).toBe(0);
    const failed = await run({ values: { baseline: file, 'fail-if': ['perplexity > +1%', 'kl > 0.05'] } });
    expect(failed.code).toBe(4);
    expect(failed.stdout).toContain('Gate: fail. 1 of');
    expect(failed.stderr).toContain('fail: kl > 0.05 in wint4: ');
  });

  it.each([
    [{ change: 0.01, changeInterval: null }, 'Measure five times or more (--repetitions 5)'],
    [{ change: 0.01, changeInterval: [-0.1, 0.1] as const }, 'Measure more often (--repetitions)'],
  ])('gives advice that the command can follow about %j', async (check, advice) => {
    const undecided = {
      ...gate('inconclusive'),
      checks: [sampleCheck({ verdict: 'inconclusive', ...check })],
    };
    const { code, stderr } = await run({ report: { ...qualityReport(), kind: 'serve', gate: undecided } });
    expect(code).toBe(5);
    expect(stderr).toContain(advice);
    expect(stderr).not.toContain('--baseline-command');
  });

  it('does not replace the baseline that a run failed against', async () => {
    const dir = await createTempDir();
    const file = path.join(dir, 'base.json');
    await run({ values: { 'save-baseline': file } });
    const before = await readFile(file, 'utf8');
    const worse = qualityReport();
    const conditions = ['perplexity > +1%', 'kl > 0.05'];
    const values = { baseline: file, 'save-baseline': file, 'fail-if': conditions };
    const failed = await run({ report: { ...worse, partial: true }, values });
    expect(failed.code).toBe(4);
    expect(failed.stderr).toContain('is kept as it was');
    expect(await readFile(file, 'utf8')).toBe(before);
  });

  it('shows what was measured before Ctrl-C, decides nothing and keeps no baseline', async () => {
    const dir = await createTempDir();
    const values = {
      'save-baseline': path.join(dir, 'base.json'),
      'fail-if': ['kl > 0'],
      reporter: [`json:${path.join(dir, 'report.json')}`],
    };
    const text = await run({ values, interrupted: 130 });
    expect(text.code).toBe(130);
    expect(text.stdout).toContain('(incomplete: it ended early)');
    expect(text.stderr).toContain('Code: aborted');
    expect(await readdir(dir)).toEqual(['report.json']);
    const json = await run({ values, argv: ['--json'], interrupted: 143 });
    expect(json.code).toBe(143);
    const envelope = JSON.parse(json.stdout) as { status: number; result: BenchReport };
    expect(envelope.status).toBe(143);
    expect(envelope.result).toMatchObject({ partial: true, gate: null });
  });

  it('writes every file that can be written, and fails for the others', async () => {
    const dir = await createTempDir();
    const values = {
      reporter: [`csv:${path.join(dir, 'gone', 'a.csv')}`, `junit:${path.join(dir, 'b.xml')}`],
      html: path.join(dir, 'c.html'),
    };
    await mkdir(path.join(dir, 'gone'));
    const meanwhile = (): Promise<void> => rm(path.join(dir, 'gone'), { recursive: true });
    const ended = await run({ values, meanwhile });
    expect(ended.code).toBe(1);
    expect(ended.stdout).toContain('fdq bench: Quality');
    expect(ended.stderr).toContain('Code: write_failed');
    expect((await readdir(dir)).sort()).toEqual(['b.xml', 'c.html']);
  });

  it('reports what was measured though the command could not save its own files', async () => {
    const file = path.join(await createTempDir(), 'report.json');
    const unsaved = [new UserError('write_failed', 'Cannot write result.json: ENOSPC.')];
    const { code, stdout, stderr } = await run({ values: { reporter: [`json:${file}`] }, unsaved });
    expect(code).toBe(1);
    expect(stdout).toContain('wint8');
    expect(stderr).toContain('Cannot write result.json: ENOSPC.');
    expect(JSON.parse(await readFile(file, 'utf8'))).toHaveProperty('schema');
  });

  it('lets a failed check decide the exit code over a file that cannot be written', async () => {
    const dir = await createTempDir();
    const folder = path.join(dir, 'gone');
    await mkdir(folder);
    const report = { ...qualityReport(), gate: gate('fail') };
    const values = { reporter: [`csv:${path.join(folder, 'a.csv')}`] };
    const ended = await run({ report, values, meanwhile: () => rm(folder, { recursive: true }) });
    expect(ended.code).toBe(4);
    expect(ended.stderr).toContain('Warning: Cannot write');
  });

  it.each([
    [{ reporter: ['csv:/no/such/folder/a.csv'] }, 'Expected --reporter to name a file'],
    [{ html: '/no/such/folder/a.html' }, 'Expected --html to name a file'],
    [{ 'save-baseline': '/no/such/folder/a.json' }, 'Expected --save-baseline to name a file'],
    [{ 'fail-if': ['nonsense'] }, 'nonsense'],
    [{ reporter: ['xml'] }, 'but received "xml"'],
  ])('refuses %j before anything is measured', async (values, message) => {
    let isMeasured = false;
    const meanwhile = async (): Promise<void> => void (isMeasured = true);
    const ended = await run({ values, meanwhile });
    expect(ended).toMatchObject({ code: 2, stdout: '' });
    expect(ended.stderr).toContain(message);
    expect(isMeasured).toBe(false);
  });
});

describe('in GitHub Actions', () => {
  it('annotates on stderr, appends summary and outputs, and keeps --json pure', async () => {
    const dir = await createTempDir();
    const files = { GITHUB_STEP_SUMMARY: path.join(dir, 'summary'), GITHUB_OUTPUT: path.join(dir, 'output') };
    await writeFile(files.GITHUB_STEP_SUMMARY, 'Before.\n\n');
    const report = { ...qualityReport(), gate: gate('fail') };
    const ended = await run({ report, argv: ['--json'], environment: { GITHUB_ACTIONS: 'true', ...files } });
    expect(ended.code).toBe(4);
    expect((JSON.parse(ended.stdout) as { status: number }).status).toBe(4);
    expect(ended.stderr).toMatch(/^::error title=kl of wint4 t=2::/m);
    expect(await readFile(files.GITHUB_STEP_SUMMARY, 'utf8')).toMatch(
      /^Before\.\n\n## fdq bench: Quality – ❌ fail\n/,
    );
    expect(await readFile(files.GITHUB_OUTPUT, 'utf8')).toMatch(/^verdict=fail\n/);
  });

  it('does without the files, and survives those that cannot be written', async () => {
    const environment = { GITHUB_ACTIONS: 'true', GITHUB_STEP_SUMMARY: '/no/such/folder/summary' };
    const { code, stderr } = await run({ environment });
    expect(code).toBe(0);
    expect(stderr).toContain('GitHub is not told');
  });
});
