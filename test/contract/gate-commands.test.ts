import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import process from 'node:process';
import { describe, expect, it } from 'vitest';
import { compareCommands } from '../../src/bench/gate/compare-commands.js';
import { parseGate, type GateOptions } from '../../src/bench/gate/options.js';
import { RoundsChild, type Invocation } from '../../src/bench/gate/rounds-child.js';
import type { BenchReport } from '../../src/bench/report.js';

const CHILD = path.join(import.meta.dirname, '..', 'helpers', 'rounds-child.mjs');

function build(...args: string[]): Invocation {
  return { text: `build ${args.join(' ')}`, file: process.execPath, args: [CHILD, ...args] };
}

function gateOf(condition: string): GateOptions {
  const values = { 'time-budget': '1h', 'min-rounds': 24, 'max-rounds': 200, 'baseline-command': 'other' };
  return parseGate({ ...values, 'fail-if': [condition] }, 'speed');
}

function compare(
  now: Invocation,
  baseline: Invocation,
  { condition = 'decode < -5%', signal }: { condition?: string; signal?: AbortSignal } = {},
): Promise<BenchReport> {
  return compareCommands(
    { now, baseline },
    { gate: gateOf(condition), seed: 1, ...(signal === undefined ? {} : { signal }) },
  );
}

/** Parents and arguments of all processes, a line each; those that have ended have no arguments. */
function listProcesses(): string[] {
  return readdirSync('/proc').flatMap((pid) => {
    try {
      const parent = /^PPid:\s+(\d+)$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
      return [`${parent} ${readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ')}`];
    } catch {
      return []; // no process, or gone meanwhile
    }
  });
}

/** Builds of this test file that still run. */
function listRunning(): string {
  return listProcesses()
    .filter((line) => line.includes(CHILD) && line.startsWith(`${process.pid} `))
    .join('\n');
}

/** They outlive their parent unless the group is ended. */
function listGrandchildren(): string {
  return listProcesses()
    .filter((line) => line.includes(`${CHILD} grandchild`))
    .join('\n');
}

describe('compareCommands', () => {
  it.each([
    ['100', 'pass'],
    ['88', 'fail'],
  ])('compares a build of %s tok/s with one of 100', async (decode, verdict) => {
    const report = await compare(build('answer', decode), build('answer'));
    expect(report).toMatchObject({ kind: 'speed', partial: false, gate: { verdict, baseline: 'other' } });
    expect(report.gate?.checks[0]).toMatchObject({ condition: 'decode < -5%', scenario: 'a', verdict });
    expect(report.gate?.checks[0]?.change).toBeCloseTo(Number(decode) / 100 - 1, 2);
    expect(report.scenarios[0]?.metrics[0]?.samples.length).toBeGreaterThanOrEqual(24);
    expect(listRunning()).toBe('');
  });

  it.each([
    ['die', '"build die" ended with exit code 3 instead of an answer. It wrote:\ncannot find the model'],
    ['die-later', '"build die-later" ended with SIGKILL instead of an answer. It wrote:\nout of memory'],
    ['nonsense', '"build nonsense" answered "hello" instead of a ready line'],
    ['refuse', '"build refuse" failed: No model there.'],
    ['wrong-round', '"build wrong-round" answered round 1 of "a" instead of round 0 of "a"'],
    ['other-scenario', 'The other build does not measure the scenario "a".'],
  ])('names a baseline that does not play along: %s', async (mode, message) => {
    await expect(compare(build('answer'), build(mode))).rejects.toThrow(message);
    expect(listRunning()).toBe('');
  });

  it('names a program that does not start', async () => {
    const missing = { text: 'no-such-program', file: '/no/such/program', args: [] };
    await expect(compare(build('answer'), missing)).rejects.toThrow(
      expect.objectContaining({
        code: 'usage',
        message: expect.stringContaining('cannot be started') as unknown,
      }),
    );
    expect(listRunning()).toBe('');
  });

  it.each(['silent', 'leave'])(
    'ends a baseline that never answers, and what it started: %s',
    async (mode) => {
      const run = RoundsChild.start(build(mode), { timeoutMs: 1000 });
      await expect(run).rejects.toThrow(
        expect.objectContaining({
          code: 'runtime_failed',
          param: '--baseline-command',
          message: `"build ${mode}" gave no sign of a ready line for 1.0s.`,
        }),
      );
      expect(listRunning()).toBe('');
      expect(listGrandchildren()).toBe('');
    },
  );

  it('does not wait for the other build when one cannot start', async () => {
    const missing = { text: 'no-such-program', file: '/no/such/program', args: [] };
    await expect(compare(missing, build('silent'))).rejects.toThrow('cannot be started');
    expect(listRunning()).toBe('');
    expect(listGrandchildren()).toBe('');
  });

  it('refuses a metric that is not measured in rounds', async () => {
    await expect(compare(build('answer'), build('answer'), { condition: 'load > +5%' })).rejects.toThrow(
      'Cannot decide about "load > +5%" in rounds',
    );
    expect(listRunning()).toBe('');
  });

  it('returns what was measured so far when it is aborted', async () => {
    const abort = new AbortController();
    const gate = gateOf('decode < -5%');
    const report = await compareCommands(
      { now: build('answer'), baseline: build('answer') },
      {
        gate,
        seed: 1,
        signal: abort.signal,
        onProgress: ({ pairs }) => {
          if (pairs === 3) abort.abort(new Error('Ctrl-C'));
        },
      },
    );
    expect(report.partial).toBe(true);
    expect(report.scenarios[0]?.metrics[0]?.samples).toHaveLength(3);
    expect(report.gate?.verdict).toBe('inconclusive');
    expect(listRunning()).toBe('');
  });

  it('does not wait for a build that hangs when it is aborted', async () => {
    const abort = new AbortController();
    const run = compareCommands(
      { now: build('answer'), baseline: build('hang') },
      {
        gate: gateOf('decode < -5%'),
        seed: 1,
        signal: abort.signal,
        onProgress: ({ pairs }) => {
          if (pairs === 2) setImmediate(() => abort.abort(new Error('Ctrl-C')));
        },
      },
    );
    await expect(run).resolves.toMatchObject({ partial: true });
    expect(listRunning()).toBe('');
  });
});
