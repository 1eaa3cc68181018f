import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { parseGate, type GateOptions } from '../../../../src/bench/gate/options.js';
import type { BenchReport } from '../../../../src/bench/report.js';
import {
  checkStoredLaunches,
  repeatLaunches,
  splitConditions,
} from '../../../../src/bench/speed/launches.js';
import { reportOf } from '../../../helpers/bench-report.js';
import { createTempDir } from '../../../helpers/temp-dir.js';

/** One launch of two models. */
const launchOf = (load: number): BenchReport =>
  reportOf({
    none: { load: [load], peak_rss: [1000 + load], decode: [10, 11] },
    wint8: { load: [2 * load], decode: [20, 21] },
  });
const gateOf = (...conditions: string[]): GateOptions =>
  parseGate({ 'fail-if': conditions, 'time-budget': '1m' }, 'speed');

/** Loads of launches after the first, the last one again and again. */
function source(loads: readonly number[]): { readonly again: (n: number) => Promise<BenchReport> } {
  return { again: async (n) => launchOf(loads[Math.min(n, loads.length) - 1] as number) };
}

describe('repeatLaunches', () => {
  it('takes five launches, and keeps what repetitions measured', async () => {
    const { report, result } = await repeatLaunches(
      launchOf(5),
      gateOf('load[none] > 6', 'peak_rss > 1KiB'),
      {
        ...source([5.1, 4.9, 5, 5.05]),
        clock: () => 0,
      },
    );
    const samples = report.scenarios.map(({ metrics }) => metrics.map((metric) => metric.samples));
    expect(samples).toEqual([
      [
        [5, 5.1, 4.9, 5, 5.05],
        [1005, 1005.1, 1004.9, 1005, 1005.05],
        [10, 11],
      ],
      [
        [10, 10.2, 9.8, 10, 10.1],
        [20, 21],
      ],
    ]);
    expect(result?.verdict).toBe('pass');
  });

  it('goes on until it can tell', async () => {
    const loads = [7, 5, 7, 5, ...Array.from({ length: 40 }, (_, i) => 5 + 0.01 * (i % 3))];
    const { report, result } = await repeatLaunches(launchOf(5), gateOf('load[none] > 6'), {
      ...source(loads),
      clock: () => 0,
    });
    expect(report.scenarios[0]?.metrics[0]?.samples.length).toBeGreaterThan(5);
    expect(result?.verdict).toBe('pass');
  });

  it('ends with the time, undecided', async () => {
    let now = 0;
    const { report, result } = await repeatLaunches(launchOf(5), gateOf('load[none] > 6'), {
      ...source([7, 5, 7, 5, 7]),
      clock: () => (now += 25_000),
    });
    expect(report.scenarios[0]?.metrics[0]?.samples).toEqual([5, 7, 5]);
    expect(result?.verdict).toBe('inconclusive');
  });

  it('decides nothing when it is interrupted', async () => {
    const again = async (): Promise<BenchReport> => ({ ...launchOf(5), partial: true });
    const { report, result } = await repeatLaunches(launchOf(5), gateOf('load > 6'), { again });
    expect([report.partial, result]).toEqual([true, null]);
  });

  it('launches nothing without a condition about launches', async () => {
    const { ofLaunches, ofRounds } = splitConditions(gateOf('decode < 5'));
    expect(ofRounds.conditions).toHaveLength(1);
    const again = (): Promise<BenchReport> => Promise.reject(new Error('launched'));
    await expect(repeatLaunches(launchOf(5), ofLaunches, { again })).resolves.toEqual({
      report: launchOf(5),
      result: null,
    });
  });
});

describe('checkStoredLaunches', () => {
  const check = async (samples: readonly number[], condition: string): Promise<void> => {
    const baseline = path.join(await createTempDir(), 'baseline.json');
    await writeFile(baseline, JSON.stringify(reportOf({ none: { load: samples, decode: [1] } })));
    const gate = parseGate({ 'fail-if': [condition, 'decode < -5%'], baseline }, 'speed');
    checkStoredLaunches(splitConditions(gate).ofLaunches);
  };

  it('refuses a baseline of one launch', async () => {
    await expect(check([5], 'load > +10%')).rejects.toThrow('has load of 1 launch,');
    await expect(check([5], 'load > 10')).resolves.toBeUndefined();
    await expect(check([5, 5, 5, 5, 5], 'load > +10%')).resolves.toBeUndefined();
  });
});
