import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { parseGate } from '../../../../src/bench/gate/options.js';
import { BENCH_SCHEMA, type BenchReport } from '../../../../src/bench/report.js';
import { createRepeater } from '../../../../src/bench/speed/repeat.js';
import { toMetric } from '../../../../src/bench/summarize.js';
import { ENVIRONMENT } from '../../../helpers/bench-report.js';
import { createTempDir } from '../../../helpers/temp-dir.js';

function reportOf(decode: readonly number[]): BenchReport {
  return {
    schema: BENCH_SCHEMA,
    kind: 'speed',
    environment: {} as BenchReport['environment'],
    scenarios: [{ name: 'wint8', parameters: {}, metrics: [toMetric('decode', decode)] }],
    warnings: [],
    partial: false,
    gate: null,
  };
}

const gate = (budget: string) =>
  parseGate({ 'fail-if': ['decode < 100'], 'time-budget': budget, 'max-rounds': 40 }, 'speed');
/** Their interval has the limit in it. */
const NOISY = [90, 110, 100, 95, 105];
const CLEAR = [200, 201, 200, 201, 200];

describe('createRepeater', () => {
  it('repeats until it can tell', () => {
    const repeater = createRepeater(gate('1m'), 5, () => 0);
    expect(repeater.wantsMore(reportOf(CLEAR), 5)).toBe(false);
    expect(repeater.wantsMore(reportOf(NOISY), 5)).toBe(true);
    // Looks are taken at 5, 8, 12, ... so that they are few.
    expect(repeater.wantsMore(reportOf(CLEAR), 6)).toBe(true);
    expect(repeater.wantsMore(reportOf(CLEAR), 8)).toBe(false);
    expect(repeater.decide(reportOf(CLEAR))?.verdict).toBe('pass');
    expect(repeater.decide(reportOf(NOISY))?.verdict).toBe('inconclusive');
  });

  it('stops after the most rounds', () => {
    const repeater = createRepeater(gate('1m'), 5, () => 0);
    expect(repeater.wantsMore(reportOf(NOISY), 40)).toBe(false);
  });

  it('can tell from the first five repetitions, however many more it might take', async () => {
    const baseline = path.join(await createTempDir(), 'baseline.json');
    writeFileSync(baseline, JSON.stringify({ ...reportOf(CLEAR), environment: ENVIRONMENT }));
    const values = { 'fail-if': ['decode < -5%'], baseline, 'time-budget': '2m', 'max-rounds': 400 };
    const repeater = createRepeater(parseGate(values, 'speed'), 5, () => 0);
    const slower = { ...reportOf(CLEAR.map((speed) => speed * 0.8)), environment: ENVIRONMENT };
    expect(repeater.wantsMore(slower, 5)).toBe(false);
    expect(repeater.decide(slower)?.verdict).toBe('fail');
  });

  describe('against a stored baseline of few samples', () => {
    /** Asks as long as more is wanted, each repetition taking `ms`. */
    async function repeat(stored: readonly number[], { ms = 1, budget = '2m' } = {}) {
      const baseline = path.join(await createTempDir(), 'baseline.json');
      writeFileSync(baseline, JSON.stringify({ ...reportOf(stored), environment: ENVIRONMENT }));
      const values = { 'fail-if': ['decode < -5%'], baseline, 'time-budget': budget, 'max-rounds': 400 };
      let rounds = 5;
      const repeater = createRepeater(parseGate(values, 'speed'), 5, () => rounds * ms);
      const report = (): BenchReport => ({
        ...reportOf(Array.from({ length: rounds }, (_, i) => 200 + (i % 7))),
        environment: ENVIRONMENT,
      });
      while (repeater.wantsMore(report(), rounds)) rounds++;
      const check = repeater.decide(report())?.checks[0];
      return { rounds, verdict: check?.verdict, reason: check?.reason };
    }

    it('measures no more than was asked for where no number would do', async () => {
      expect(await repeat([200])).toEqual({
        rounds: 5,
        verdict: 'inconclusive',
        reason:
          'Change +1.0% of 5 samples against 1, too few for a 95% interval: the baseline has 1 and needs 4, and up to 400 here make up for none.',
      });
    });

    it('goes on where a number would do', async () => {
      expect(await repeat([200, 201])).toMatchObject({ rounds: 93, verdict: 'pass' });
      expect(await repeat([200, 201, 202])).toMatchObject({ rounds: 18, verdict: 'pass' });
      expect(await repeat([200, 201, 202, 203])).toMatchObject({ rounds: 5, verdict: 'pass' });
    });

    it('ends as soon as it sees that there is no time for that number', async () => {
      const { rounds, verdict, reason } = await repeat([200, 201], { ms: 2000 });
      expect({ rounds, verdict }).toEqual({ rounds: 8, verdict: 'inconclusive' });
      expect(reason).toContain('the baseline has 2 and needs 4, and up to 65 here make up for none.');
      expect(await repeat([200, 201, 202], { ms: 2000 })).toMatchObject({ rounds: 18, verdict: 'pass' });
    });
  });

  it('counts the looks at each scenario, and the last as one more', () => {
    const repeater = createRepeater(gate('1m'), 5, () => 0);
    // Its interval of 97.5 %, the first look's share, is above 100; that of 99.2 %, the second's, is not.
    const close = reportOf([100.4, 101, 101.5, 102, 101.1]);
    expect(createRepeater(gate('1m'), 5, () => 0).wantsMore(close, 5)).toBe(false);
    expect(repeater.wantsMore(reportOf(NOISY), 5)).toBe(true);
    expect(repeater.wantsMore(close, 6)).toBe(true);
    expect(repeater.decide(close)?.verdict).toBe('inconclusive');
  });

  it('spends its time on repetitions that were not asked for', () => {
    let now = 0;
    const repeater = createRepeater(gate('10s'), 5, () => now);
    now = 60_000;
    expect(repeater.wantsMore(reportOf(NOISY), 5)).toBe(true);
    now = 66_000;
    expect(repeater.wantsMore(reportOf(NOISY), 6)).toBe(true);
    now = 71_000;
    expect(repeater.wantsMore(reportOf(NOISY), 7)).toBe(false);
    expect(repeater.wantsMore(reportOf(NOISY), 5)).toBe(false);
  });

  it('never repeats without conditions or time', () => {
    expect(createRepeater(gate('0s'), 5).wantsMore(reportOf(NOISY), 5)).toBe(false);
    expect(createRepeater(parseGate({}, 'speed'), 5).wantsMore(reportOf(NOISY), 5)).toBe(false);
    expect(createRepeater(parseGate({}, 'speed'), 5).decide(reportOf(NOISY))).toBeNull();
  });
});
