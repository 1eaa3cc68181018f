import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import process from 'node:process';
import { createInterface } from 'node:readline';
import { describe, expect, it, onTestFinished } from 'vitest';
import type { BenchReport, Scenario } from '../../src/bench/report.js';
import { BIN, cleanEnvironment, runCli, ROOT, type CliResult } from '../helpers/cli.js';
import { createTempDir } from '../helpers/temp-dir.js';

const DEMO = path.join(ROOT, 'models', 'demo');
/** The smallest measurement. */
const SMALL = ['-p', '16', '-n', '4', '-t', '1', '-r', '2'];

function bench(...args: readonly string[]): Promise<CliResult> {
  return runCli(['bench', DEMO, ...args]);
}

function reportOf({ code, stdout, stderr }: CliResult): BenchReport {
  expect(code, stderr + stdout).toBe(0);
  return (JSON.parse(stdout) as { readonly result: BenchReport }).result;
}

function valueOf(scenario: Scenario | undefined, id: string): number {
  return scenario?.metrics.find((metric) => metric.id === id)?.value ?? NaN;
}

describe('fdq bench', () => {
  it('measures every combination, and --json is all that stdout has', async () => {
    const dir = await createTempDir();
    const config = path.join(dir, 'plan.json');
    await writeFile(config, JSON.stringify({ quantization: 'wint8', ignore: ['re:.*o_proj'] }));
    const result = await bench(...SMALL, '-q', 'none', '-q', `@${config}`, '-d', '0,32', '-b', '2', '--json');
    const report = reportOf(result);
    expect(report).toMatchObject({ schema: 'fdq-bench/1', kind: 'speed', partial: false, gate: null });
    expect(report.environment.onnxruntime).toMatch(/^1\./);
    expect(report.environment.isa).toMatch(/^\w+$/);
    const names = report.scenarios.map(({ name }) => name);
    expect(names).toHaveLength(2 * 2);
    expect(names[0]).toBe('none kv=bfloat16 t=1 p=16 n=4 d=0 b=2');
    expect(names[1]).toBe('none kv=bfloat16 t=1 p=16 n=4 d=32 b=2');
    expect(names[3]).toMatch(/^\w+#[0-9a-f]{8} kv=bfloat16 t=1 p=16 n=4 d=32 b=2$/);
    for (const scenario of report.scenarios) {
      expect(scenario.parameters['checkpoint']).toMatch(/^[0-9a-f]{64}$/);
      for (const id of ['prefill', 'decode', 'ttft', 'itl_p50', 'itl_p90', 'itl_p99', 'bandwidth_share']) {
        const metric = scenario.metrics.find((candidate) => candidate.id === id);
        expect(metric?.samples, id).toHaveLength(2);
        expect(metric?.value, id).toBeGreaterThan(0);
        expect(metric?.interval, id).not.toBeNull();
      }
      const phases = ['locate', 'plan', 'quantize', 'build', 'warm_up'];
      const sum = phases.reduce((seconds, phase) => seconds + valueOf(scenario, `load_${phase}`), 0);
      expect(valueOf(scenario, 'load')).toBeCloseTo(sum, 9);
      expect(valueOf(scenario, 'peak_rss')).toBeGreaterThan(valueOf(scenario, 'weight_bytes'));
      const gaps = scenario.distributions?.find(({ id }) => id === 'itl');
      expect(gaps?.count).toBe(2 * 4 * Number(scenario.parameters['batch_size']));
      expect(scenario.distributions?.find(({ id }) => id === 'ttft')?.count).toBe(2);
    }
    expect(valueOf(report.scenarios[2], 'weight_bytes')).toBeLessThan(
      valueOf(report.scenarios[0], 'weight_bytes'),
    );
  });

  it('reads lists from environment and config file, and sweeps cache types and threads', async () => {
    const dir = await createTempDir();
    await writeFile(path.join(dir, 'fdq.yaml'), 'kv-cache-dtype: bfloat16,int8\nn-prompt: [0]\nn-gen: 2\n');
    const args = ['bench', DEMO, '--config', path.join(dir, 'fdq.yaml'), '-r', '1', '--json'];
    const report = reportOf(
      await runCli(args, {
        env: { FDQ_THREADS: '1,2', FDQ_QUANTIZATION: '{"quantization":"wint8","ignore":["re:.*o_proj"]}' },
      }),
    );
    expect(report.scenarios.map(({ name }) => name.replace(/#\w+/, '#'))).toEqual([
      'wint8# kv=bfloat16 t=1 p=0 n=2 d=0 b=1',
      'wint8# kv=bfloat16 t=2 p=0 n=2 d=0 b=1',
      'wint8# kv=int8 t=1 p=0 n=2 d=0 b=1',
      'wint8# kv=int8 t=2 p=0 n=2 d=0 b=1',
    ]);
    const [wide, , narrow] = report.scenarios;
    expect(valueOf(narrow, 'kv_bytes_per_token')).toBeLessThan(valueOf(wide, 'kv_bytes_per_token'));
    expect(valueOf(wide, 'prefill')).toBeNaN();
  });

  it.each([
    [['-q', 'wint5'], 2, 'unknown_scheme'],
    [['-q', 'auto'], 2, '--quantization auto chooses schemes'],
    [['-d', '100'], 2, 'multiples of 16'],
    [['-p', '0', '-n', '0'], 2, 'both -p and -n are 0'],
    [['-b', '0'], 2, 'Expected --batch-size to be a whole number'],
    [['-p', '1,x'], 2, 'Expected --n-prompt to be a number of tokens'],
    [['--kv-cache-dtype', 'bf16,fp16'], 2, 'fp16 is not supported'],
    [['-d', '1048576'], 2, 'positions'],
    [['-b', '1024', '-n', '200', '--gpu-memory-utilization', '0.01'], 1, 'out_of_memory'],
    [['--fail-if', 'decoded < 1'], 2, 'decoded'],
    [['-n', '0', '--fail-if', 'decode < 1'], 2, 'not measured: -n 0 leaves decoding out'],
    [['-n', '0,4', '--fail-if', 'itl[n=0] > 1s'], 2, 'not measured: -n 0 leaves decoding out'],
    [['--baseline-command', 'fdq', '--fail-if', 'load > +5%'], 2, 'not measured: the rounds of'],
    [['--reporter', 'csv2'], 2, 'csv2'],
  ] as const)('answers %j before a model is loaded', async (args, code, text) => {
    const result = await bench(...args);
    expect(result.stderr).toContain(text);
    expect(result.code).toBe(code);
    expect(result.stdout).toBe('');
    expect(result.stderr).not.toContain('loading');
  });

  it('prints a table, and a line for each model to stderr', async () => {
    const { code, stdout, stderr } = await bench(...SMALL);
    expect(code, stderr).toBe(0);
    expect(stdout).toContain('none kv=bfloat16 t=1 p=16 n=4 d=0 b=1');
    expect(stdout).not.toContain('loading');
    expect(stderr).toMatch(/^none kv=bfloat16 t=1: .*\(\d/m);
  });

  it('fails a check with 4', async () => {
    const { code, stderr } = await bench(...SMALL, '--fail-if', 'decode < 1e12', '--time-budget', '0s');
    expect(stderr).toContain('decode < 1e12');
    expect(code).toBe(4);
  });

  it('says at once that a baseline has too few samples', async () => {
    const baseline = path.join(await createTempDir(), 'baseline.json');
    const flags = ['-p', '0', '-n', '4', '-t', '1'];
    expect((await bench(...flags, '-r', '1', '--save-baseline', baseline)).code).toBe(0);
    const change = ['--baseline', baseline, '--fail-if', 'decode < -5%', '--time-budget', '10m'];
    const result = await bench(...flags, '-r', '5', ...change, '--json');
    expect(result.code).toBe(5);
    expect(result.stderr).toContain('the baseline has 1 and needs 4, and up to 400 here make up for none.');
    const { result: report } = JSON.parse(result.stdout) as { readonly result: BenchReport };
    const decode = report.scenarios[0]?.metrics.find(({ id }) => id === 'decode');
    expect(decode?.samples).toHaveLength(5);
  });

  it('prints what was measured when Ctrl-C ends it', async () => {
    const endless = ['-p', '16', '-n', '4', '-t', '1', '-r', '10000'];
    const { child, stderr, exit, stdout } = start([...endless, '-q', 'none,wint8', '--json']);
    await stderr(/([2-9]|\d\d+) of 10000/);
    child.kill('SIGINT');
    expect(await exit).toBe(130);
    const { status, result } = JSON.parse(stdout()) as {
      readonly status: number;
      readonly result: BenchReport;
    };
    expect(status).toBe(130);
    expect(result.partial).toBe(true);
    expect(result.scenarios).toHaveLength(1);
    expect(result.scenarios[0]?.metrics[0]?.samples.length).toBeGreaterThan(0);
  });
});

describe('fdq bench --rounds-from-stdin', () => {
  it('measures one repetition for each line until there are no more', async () => {
    const { child, lines, exit } = start([...SMALL, '-q', 'none,wint8', '--rounds-from-stdin']);
    const ready = (await lines.next()) as { readonly ready: boolean; readonly scenarios: readonly string[] };
    expect(ready.ready).toBe(true);
    expect(ready.scenarios).toEqual([
      'none kv=bfloat16 t=1 p=16 n=4 d=0 b=1',
      'wint8 kv=bfloat16 t=1 p=16 n=4 d=0 b=1',
    ]);
    for (const [round, scenario] of [...ready.scenarios, ...ready.scenarios].entries()) {
      child.stdin.write(`${JSON.stringify({ round, scenario })}\n`);
      const answer = await lines.next();
      expect(answer).toMatchObject({ round, scenario });
      const { metrics } = answer as { readonly metrics: Readonly<Record<string, number>> };
      for (const id of ['prefill', 'decode', 'ttft', 'itl_p50', 'peak_rss'])
        expect(metrics[id]).toBeGreaterThan(0);
    }
    child.stdin.end();
    expect(await exit).toBe(0);
  });

  it.each(['not json', '{"round": 1}', '{"round": 1, "scenario": "none"}'])(
    'answers the line %s with an error and 2',
    async (line) => {
      const { child, lines, exit } = start([...SMALL, '--rounds-from-stdin']);
      await lines.next();
      child.stdin.write(`${line}\n`);
      expect(await lines.next()).toMatchObject({ error: { code: 'usage' } });
      expect(await exit).toBe(2);
    },
  );

  it('says in a line why there is nothing to measure', async () => {
    const { lines, exit } = start(['-d', '1048576', '--rounds-from-stdin']);
    expect(await lines.next()).toMatchObject({ error: { code: 'usage' } });
    expect(await exit).toBe(2);
  });
});

interface Started {
  readonly child: ReturnType<typeof spawnBench>;
  /** Resolves when stderr has it. */
  readonly stderr: (pattern: RegExp) => Promise<void>;
  readonly stdout: () => string;
  readonly lines: { next(): Promise<object> };
  readonly exit: Promise<number | null>;
}

function spawnBench(args: readonly string[]) {
  return spawn(process.execPath, [BIN, 'bench', DEMO, ...args], {
    env: cleanEnvironment(),
    stdio: ['pipe', 'pipe', 'pipe'],
  });
}

/** It dies with the test. */
function start(args: readonly string[]): Started {
  const child = spawnBench(args);
  onTestFinished(() => void child.kill('SIGKILL'));
  const texts = { stdout: '', stderr: '' };
  child.stdout.on('data', (chunk: Buffer) => (texts.stdout += chunk.toString()));
  child.stderr.on('data', (chunk: Buffer) => (texts.stderr += chunk.toString()));
  const reader = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const exit = once(child, 'close').then((values: readonly unknown[]) => values[0] as number | null);
  return {
    child,
    exit,
    stdout: () => texts.stdout,
    stderr: async (pattern) => {
      while (!pattern.test(texts.stderr)) {
        const isEnded = await Promise.race([
          once(child.stderr, 'data').then(() => false),
          exit.then(() => true),
        ]);
        if (isEnded) throw new Error(`it ended: ${texts.stderr}`);
      }
    },
    lines: {
      next: async () => {
        const line = await reader.next();
        if (line.done === true) throw new Error(`it ended: ${texts.stderr}`);
        return JSON.parse(line.value) as object;
      },
    },
  };
}
