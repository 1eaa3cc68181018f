import { execFile } from 'node:child_process';
import { chmod, mkdir, readFile, symlink, writeFile } from 'node:fs/promises';
import path from 'node:path';
import process from 'node:process';
import { describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import type { BenchReport } from '../../src/bench/report.js';
import { BIN, CHILD_TIMEOUT_MS, cleanEnvironment, ROOT } from '../helpers/cli.js';
import { createTempDir } from '../helpers/temp-dir.js';

interface Step {
  readonly name?: string;
  readonly id?: string;
  readonly if?: string;
  readonly uses?: string;
  readonly with?: Readonly<Record<string, unknown>>;
  readonly run?: string;
  readonly env?: Readonly<Record<string, unknown>>;
  readonly 'working-directory'?: string;
}

interface Job {
  readonly needs?: string | readonly string[];
  readonly if?: string;
  readonly permissions?: Readonly<Record<string, string>>;
  readonly 'timeout-minutes'?: number;
  readonly steps: readonly Step[];
}

interface Workflow {
  readonly on: Readonly<Record<string, unknown>>;
  readonly permissions: Readonly<Record<string, string>>;
  readonly env: Readonly<Record<string, unknown>>;
  readonly jobs: Readonly<Record<string, Job>>;
}

async function readYaml<T>(name: string): Promise<T> {
  return parse(await readFile(path.join(ROOT, 'docs', 'ci', name), 'utf8')) as T;
}

interface StepResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
  readonly summary: string;
  readonly outputs: Readonly<Record<string, string>>;
}

/** A checked out project that depends on fdq, with the target branch beside it and programs that only say how they were called. */
async function createProject(): Promise<string> {
  const dir = await createTempDir();
  const bin = path.join(dir, 'programs');
  await mkdir(bin);
  for (const program of ['npm', 'gh']) {
    await writeFile(
      path.join(bin, program),
      `#!/bin/sh\nprintf '%s\\n' "${program} $*" >> "${dir}/called"\n`,
    );
    await chmod(path.join(bin, program), 0o755);
  }
  for (const folder of [dir, path.join(dir, 'base')]) {
    await mkdir(path.join(folder, 'node_modules', '.bin'), { recursive: true });
    await symlink(ROOT, path.join(folder, 'node_modules', 'fdq'));
    await symlink(BIN, path.join(folder, 'node_modules', '.bin', 'fdq'));
    await writeFile(path.join(folder, 'package.json'), '{"name": "project", "private": true}');
  }
  await symlink(path.join(ROOT, 'models'), path.join(dir, 'models'));
  return dir;
}

/** What the runner does with the `run:` of a step: bash stops at the first failure, also in pipes. */
async function runStep(
  dir: string,
  step: Step,
  environment: Readonly<Record<string, string>>,
): Promise<StepResult> {
  const files = { GITHUB_STEP_SUMMARY: path.join(dir, 'summary'), GITHUB_OUTPUT: path.join(dir, 'output') };
  for (const file of Object.values(files)) await writeFile(file, '');
  const env = cleanEnvironment({
    ...environment,
    ...files,
    GITHUB_ACTIONS: 'true',
    CI: 'true',
    PATH: `${path.join(dir, 'programs')}:${path.dirname(process.execPath)}:${process.env['PATH'] ?? ''}`,
  });
  const cwd = path.join(dir, step['working-directory'] ?? '.');
  const script = ['--noprofile', '--norc', '-eo', 'pipefail', '-c', step.run ?? ''];
  const ended = await new Promise<Omit<StepResult, 'summary' | 'outputs'>>((resolve, reject) => {
    execFile('bash', script, { cwd, env, timeout: CHILD_TIMEOUT_MS }, (error, stdout, stderr) => {
      const code = error === null ? 0 : error.code;
      if (typeof code === 'number') resolve({ code, stdout, stderr });
      else reject(error ?? new Error('no exit code'));
    });
  });
  const outputs = (await readFile(files.GITHUB_OUTPUT, 'utf8')).trimEnd().split('\n');
  return {
    ...ended,
    summary: await readFile(files.GITHUB_STEP_SUMMARY, 'utf8'),
    outputs: Object.fromEntries(
      outputs.map((line) => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)] as const),
    ),
  };
}

function stepsOf({ jobs }: Workflow, job: string): readonly Step[] {
  return jobs[job]?.steps ?? [];
}

function stepNamed(workflow: Workflow, job: string, name: string): Step {
  const found = stepsOf(workflow, job).find((step) => step.name === name);
  if (found === undefined) throw new Error(`no step ${name}`);
  return found;
}

/** The variables of the workflow, with less to measure. */
function small({ env }: Workflow): Readonly<Record<string, string>> {
  const texts = Object.entries(env).map(([name, value]) => [name, String(value)] as const);
  return { ...Object.fromEntries(texts), SCHEMES: 'wint8', WINDOWS: '1', FDQ_MAX_PROMPTS: '1' };
}

describe('the GitHub workflow', () => {
  it('pins actions, lets jobs that run code of the project only read, and ends', async () => {
    const { on, permissions, jobs } = await readYaml<Workflow>('fdq-bench.yml');
    expect(Object.keys(on)).toEqual(['pull_request', 'push']);
    expect(permissions).toEqual({ contents: 'read' });
    for (const [name, job] of Object.entries(jobs)) {
      const runsProject = job.steps.some(({ run = '' }) => /\b(npm|npx)\b/.test(run));
      expect(runsProject ? job.permissions : 'own', name).toBe(runsProject ? undefined : 'own');
      if (runsProject) expect(job['timeout-minutes'], name).toBeLessThanOrEqual(60);
      for (const { uses, run } of job.steps) {
        expect((uses === undefined) !== (run === undefined)).toBe(true);
        if (uses !== undefined) expect(uses).toMatch(/^[\w-]+\/[\w-]+(\/[\w-]+)?@v\d+$/);
        // What others may name (branches, titles) gets into a script by variables only.
        expect(run ?? '').not.toContain('${{');
      }
    }
    expect(jobs['comment']?.permissions).toEqual({ 'pull-requests': 'write' });
    expect(jobs['trend']?.permissions).toEqual({ contents: 'write' });
  });

  it('hands on files that its steps write, under the same names', async () => {
    const workflow = await readYaml<Workflow>('fdq-bench.yml');
    const scripts = Object.keys(workflow.jobs)
      .flatMap((job) => stepsOf(workflow, job).map(({ run = '' }) => run))
      .join('\n');
    expect(scripts).toContain('--reporter gha-benchmark:quality.json');
    const trend = stepsOf(workflow, 'trend').filter(({ uses = '' }) =>
      uses.includes('github-action-benchmark'),
    );
    expect(trend.map((step) => [step.with?.['tool'], step.with?.['output-file-path']])).toEqual([
      ['customBiggerIsBetter', 'quality.bigger.json'],
      ['customSmallerIsBetter', 'quality.smaller.json'],
    ]);
    const caches = stepsOf(workflow, 'quality').filter(({ uses = '' }) => uses.startsWith('actions/cache'));
    expect(caches).toHaveLength(2);
    expect(caches[0]?.with).toMatchObject(caches[1]?.with ?? {});
    expect(String(caches[0]?.with?.['key'])).toContain(String(caches[0]?.with?.['restore-keys']));
  });

  it('measures, keeps a baseline, compares with it, and fails when the model got worse', async () => {
    const workflow = await readYaml<Workflow>('fdq-bench.yml');
    const dir = await createProject();
    const measure = stepNamed(workflow, 'quality', 'Measure quality');
    const first = await runStep(dir, measure, small(workflow));
    expect(first.code, first.stderr).toBe(0);
    expect(first.stdout).toContain('Gate: pass. 2 of 2 checks passed.');
    expect(first.summary).toMatch(/^## fdq bench: Quality – ✅ pass\n/);
    expect(first.outputs['verdict']).toBe('pass');
    expect(first.stderr).not.toMatch(/^::/m);
    const keep = stepNamed(workflow, 'quality', 'Use these figures as the next baseline');
    expect((await runStep(dir, keep, {})).code).toBe(0);

    const baseline = path.join(dir, 'quality-baseline.json');
    const report = JSON.parse(await readFile(baseline, 'utf8')) as BenchReport;
    const better = report.scenarios.map((scenario) => ({
      ...scenario,
      metrics: scenario.metrics.map((metric) => {
        const factor = metric.id === 'perplexity' ? 0.9 : 1;
        return {
          ...metric,
          value: metric.value * factor,
          samples: metric.samples.map((each) => each * factor),
        };
      }),
    }));
    await writeFile(baseline, JSON.stringify({ ...report, scenarios: better }));
    const worse = await runStep(dir, measure, small(workflow));
    expect(worse.code).toBe(4);
    expect(worse.summary).toContain('Compared with quality-baseline.json.');
    expect(worse.summary).toContain('❌ fail | perplexity \\> +1%');
    // What did not change is no alarm.
    expect(worse.summary).toContain('✅ pass | kl \\> +10%');
    expect(worse.outputs['verdict']).toBe('fail');
    expect(worse.stderr.match(/^::error title=perplexity of [^:]*::perplexity > \+1%25: /gm)).toHaveLength(1);
    expect(await readFile(path.join(dir, 'quality.xml'), 'utf8')).toContain('<failure');

    const comment = stepNamed(workflow, 'comment', 'Comment on the pull request');
    const told = await runStep(dir, comment, { PULL_REQUEST: '7', GITHUB_REPOSITORY: 'some/project' });
    expect(told.code, told.stderr).toBe(0);
    expect(await readFile(path.join(dir, 'called'), 'utf8')).toBe(
      'gh pr comment 7 --repo some/project --edit-last --create-if-none --body-file comment.txt\n',
    );
    expect(await readFile(path.join(dir, 'comment.txt'), 'utf8')).toMatch(
      /^## fdq bench: Quality – ❌ fail\n/,
    );
  });

  it('compares the build of the pull request with that of its target', async () => {
    const workflow = await readYaml<Workflow>('fdq-bench.yml');
    const dir = await createProject();
    const compare = stepNamed(workflow, 'speed', 'Compare speed with the target branch');
    // Two processes at work on the same build: whether that is decided, and how, is left to the machine.
    const quick = { FDQ_MIN_ROUNDS: '2', FDQ_MAX_ROUNDS: '2' };
    const result = await runStep(dir, compare, { ...small(workflow), ...quick });
    const verdict = result.outputs['verdict'] ?? '';
    expect(['pass', 'inconclusive', 'fail'], result.stderr).toContain(verdict);
    expect(result.code).toBe(verdict === 'fail' ? 1 : 0);
    expect(result.summary).toContain(`Compared with node base/node\\_modules/fdq/bin/run.js.`);
    expect(await readFile(path.join(dir, 'speed.html'), 'utf8')).toContain('<h2>Checks (2)</h2>');
  });
});

describe('the GitLab job', () => {
  interface GitlabJob {
    readonly variables: Readonly<Record<string, string>>;
    readonly script: readonly string[];
    readonly allow_failure: { readonly exit_codes: readonly number[] };
    readonly artifacts: { readonly reports: Readonly<Record<string, string>> };
  }

  it('writes the reports that GitLab shows', async () => {
    const { 'fdq-quality': job } = await readYaml<{ 'fdq-quality': GitlabJob }>('gitlab-ci.yml');
    const dir = await createProject();
    const environment = { ...job.variables, SCHEMES: 'wint8', WINDOWS: '1', FDQ_MAX_PROMPTS: '1' };
    const result = await runStep(dir, { run: job.script.join('\n') }, environment);
    expect(result.code, result.stderr).toBe(0);
    expect(job.allow_failure.exit_codes).toEqual([5]);
    const { junit = '', metrics = '' } = job.artifacts.reports;
    expect(await readFile(path.join(dir, junit), 'utf8')).toContain('<testsuites');
    expect(await readFile(path.join(dir, metrics), 'utf8')).toMatch(
      /^fdq_bench_kl\{scenario="wint8[^"]*"\} /m,
    );
  });
});
