import { describe, expect, it } from 'vitest';
import { parseGateCondition } from '../../../../src/bench/gate/conditions.js';
import { evaluateGate, gateWarnings, judge } from '../../../../src/bench/gate/evaluate.js';
import { parseGate, type GateOptions } from '../../../../src/bench/gate/options.js';
import type { BenchReport, GateCheck } from '../../../../src/bench/report.js';
import { ENVIRONMENT, reportOf } from '../../../helpers/bench-report.js';

function optionsOf(conditions: readonly string[], baseline?: BenchReport): GateOptions {
  return {
    ...parseGate({}, 'speed'),
    conditions: conditions.map(parseGateCondition),
    baseline: baseline === undefined ? null : { file: 'old.json', report: baseline },
  };
}

function checkOf(report: BenchReport, condition: string, baseline?: BenchReport): GateCheck | undefined {
  return evaluateGate(report, optionsOf([condition], baseline))?.checks[0];
}

const around = (centre: number): readonly number[] =>
  [-0.02, -0.01, 0, 0.01, 0.02, 0.005].map((noise) => centre * (1 + noise));

describe('evaluateGate', () => {
  it('says nothing without conditions', () => {
    expect(evaluateGate(reportOf({ a: { decode: [1] } }), optionsOf([]))).toBeNull();
  });

  it.each([
    ['kl > 0.02', 0.013, 'pass'],
    ['kl > 0.02', 0.021, 'fail'],
    ['kl >= 0.02', 0.02, 'fail'],
    ['kl > 0.02', 0.02, 'pass'],
  ] as const)('compares exact figures directly: %s of %f', (condition, value, verdict) => {
    expect(checkOf(reportOf({ wint4: { kl: [value] } }), condition)).toMatchObject({ verdict, value });
  });

  it.each([
    ['decode < 90', 'pass'],
    ['decode < 100', 'inconclusive'],
    ['decode < 110', 'fail'],
    ['decode > 90', 'fail'],
  ] as const)('judges noisy figures by their whole interval: %s of about 100', (condition, verdict) => {
    expect(checkOf(reportOf({ a: { decode: around(100) } }), condition)?.verdict).toBe(verdict);
  });

  it('knows nothing of a noisy figure that was measured once', () => {
    expect(checkOf(reportOf({ a: { decode: [50] } }), 'decode < 90')).toMatchObject({
      verdict: 'inconclusive',
      value: 50,
      reason: expect.stringContaining('measured once') as unknown,
    });
  });

  it.each([
    [100, 'pass'],
    [96, 'inconclusive'],
    [80, 'fail'],
  ] as const)('judges %i against about 100 relative to the baseline', (now, verdict) => {
    const check = checkOf(
      reportOf({ a: { decode: around(now) } }),
      'decode < -5%',
      reportOf({ a: { decode: around(100) } }),
    );
    expect(check?.verdict).toBe(verdict);
    expect(check?.baselineValue).toBeCloseTo(100, 0);
    expect(check?.change).toBeCloseTo(now / 100 - 1, 6);
    expect(check?.changeInterval?.[0]).toBeLessThan(now / 100 - 1);
  });

  it('shows the medians that a change is about, which one wild repetition does not move', () => {
    const report = reportOf({ a: { decode: [88, 90, 90, 91, 92, 9] } });
    const before = reportOf({ a: { decode: [98, 100, 100, 101, 102, 1000] } });
    const check = checkOf(report, 'decode < -5%', before);
    expect(check).toMatchObject({ value: 90, baselineValue: 100.5, verdict: 'fail' });
    expect(check?.change).toBeCloseTo(90 / 100.5 - 1, 2);
    expect(checkOf(report, 'decode < 95')?.value).toBeCloseTo(460 / 6, 6);
  });

  it('knows too little of three and three samples', () => {
    const check = checkOf(
      reportOf({ a: { decode: [50, 51, 52] } }),
      'decode < -5%',
      reportOf({ a: { decode: [100, 101, 102] } }),
    );
    expect(check).toMatchObject({ verdict: 'inconclusive', changeInterval: null });
    expect(check?.reason).toBe(
      'Change -49.5% of 3 samples against 3, too few for a 95% interval: with 3 here the baseline needs 5 and has 3.',
    );
  });

  it('compares exact figures with a baseline without an interval', () => {
    const before = reportOf({ a: { kl: [0.01] } });
    expect(checkOf(reportOf({ a: { kl: [0.0111] } }), 'kl > +10%', before)?.verdict).toBe('fail');
    expect(checkOf(reportOf({ a: { kl: [0.0109] } }), 'kl > +10%', before)?.verdict).toBe('pass');
    expect(checkOf(reportOf({ a: { kl: [0] } }), 'kl > +10%', reportOf({ a: { kl: [0] } }))?.change).toBe(0);
  });

  it('has the worst verdict of all scenarios and conditions', () => {
    const report = reportOf({ a: { decode: around(100), kl: [0.01] }, b: { decode: around(50) } });
    const verdictOf = (...conditions: string[]): string | undefined =>
      evaluateGate(report, optionsOf(conditions))?.verdict;
    expect(verdictOf('decode < 30', 'kl > 0.02')).toBe('pass');
    expect(verdictOf('decode < 100')).toBe('fail');
    expect(verdictOf('decode[a] < 100', 'kl > 0.02')).toBe('inconclusive');
    expect(verdictOf('decode[a] < 100', 'kl > 0.001')).toBe('fail');
  });

  it('never passes what was not measured', () => {
    expect(checkOf(reportOf({ a: { prefill: [1] } }), 'decode < 30')).toMatchObject({
      verdict: 'inconclusive',
      value: null,
    });
    expect(checkOf(reportOf({ a: { decode: [1] } }), 'decode[b] < 30')).toMatchObject({
      verdict: 'inconclusive',
      scenario: 'b',
    });
  });

  describe('with a baseline of another machine', () => {
    const before = reportOf(
      { a: { decode: around(100), kl: [0.01] } },
      { environment: { ...ENVIRONMENT, cpu: 'Faster CPU' } },
    );
    const report = reportOf({ a: { decode: around(50), kl: [0.02] } });

    it('decides about exact figures but not about speed', () => {
      expect(checkOf(report, 'kl > +10%', before)?.verdict).toBe('fail');
      expect(checkOf(report, 'decode < -5%', before)).toMatchObject({
        verdict: 'inconclusive',
        reason: expect.stringContaining('cpu Faster CPU, here Test CPU') as unknown,
      });
      expect(gateWarnings(report, optionsOf([], before))).toHaveLength(1);
    });

    it('decides all the same where that is allowed', () => {
      const options = { ...optionsOf(['decode < -5%'], before), allowOtherMachine: true };
      expect(evaluateGate(report, options)?.verdict).toBe('fail');
    });
  });

  it('asks more of a look that may miss less often', () => {
    const report = reportOf({ a: { decode: around(100) } });
    const options = optionsOf(['decode < 98'], undefined);
    const open = (alpha: number): boolean | undefined =>
      judge(report, options, { alphaOf: () => alpha })[0]?.isOpen;
    expect(open(0.05)).toBe(false);
    expect(open(0.005)).toBe(true);
  });
});
