import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { checkScenarios, describeSingleSample, parseGate } from '../../../../src/bench/gate/options.js';
import { METRICS } from '../../../../src/bench/metrics.js';
import { reportOf } from '../../../helpers/bench-report.js';
import { createTempDir } from '../../../helpers/temp-dir.js';

describe('parseGate', () => {
  let file: string;

  beforeEach(async () => {
    file = path.join(await createTempDir(), 'baseline.json');
    write(reportOf({ 'wint4 b=1': { decode: [30, 31] }, 'wint8 b=1': { prefill: [400, 410] } }));
  });

  function write(value: unknown): void {
    writeFileSync(file, typeof value === 'string' ? value : JSON.stringify(value));
  }

  it('is empty without flags', () => {
    expect(parseGate({}, 'speed')).toEqual({
      conditions: [],
      baseline: null,
      baselineCommand: null,
      saveBaseline: null,
      allowOtherMachine: false,
      rounds: { timeBudgetMs: 0, min: 1, max: 1 },
    });
  });

  it('reads durations', () => {
    const budget = (text: string): number => parseGate({ 'time-budget': text }, 'speed').rounds.timeBudgetMs;
    expect(['250ms', '90s', '2m', '1.5h'].map(budget)).toEqual([250, 90e3, 120e3, 5400e3]);
    expect(() => budget('2 days')).toThrow('Expected --time-budget to be a duration like 90s or 2m');
    expect(() => budget('-1s')).toThrow('Expected --time-budget to be a duration like 90s or 2m');
  });

  it('takes the report with the envelope of --json and without it', () => {
    const values = { baseline: file, 'fail-if': ['decode < -5%'] };
    expect(parseGate(values, 'speed').baseline?.report.scenarios).toHaveLength(2);
    write({ status: 0, result: reportOf({ a: { decode: [1, 2] } }), warnings: [] });
    expect(parseGate(values, 'speed').baseline?.report.scenarios[0]?.name).toBe('a');
  });

  it.each([
    ['no JSON at all', 'it is no JSON'],
    [{ status: 4, error: { code: 'usage' } }, 'it is no report of fdq bench'],
    [[1, 2], 'it is no report of fdq bench'],
    [{ ...reportOf({}), schema: 'fdq-bench/0' }, 'it has the schema "fdq-bench/0" and not fdq-bench/1'],
    [{ ...reportOf({}), kind: 'quality' }, 'it was written by fdq bench quality and not by fdq bench'],
    [
      { ...reportOf({}), scenarios: [{ name: 'a' }] },
      'expected its "scenarios[0].parameters" to be an object but received nothing',
    ],
  ])('refuses the baseline %j', (value, message) => {
    write(value);
    expect(() => parseGate({ baseline: file, 'fail-if': ['decode < -5%'] }, 'speed')).toThrow(message);
  });

  it('refuses a baseline that does not exist', () => {
    expect(() => parseGate({ baseline: `${file}.not`, 'fail-if': ['decode < -5%'] }, 'speed')).toThrow(
      expect.objectContaining({ code: 'report_not_found', exitCode: 3, param: '--baseline' }),
    );
  });

  it.each([
    [['decode < -5%'], {}, 'Expected a baseline for the change in "decode < -5%".'],
    [['ttft > +5%'], { baseline: true }, 'has no ttft for "ttft > +5%"'],
    [['decode[wint8] < -5%'], { baseline: true }, 'has no decode for "decode[wint8] < -5%"'],
    [['decode[nvfp4] < -5%'], { baseline: true }, 'has no scenario for "decode[nvfp4] < -5%"'],
    [[], { baseline: true }, 'Expected a --fail-if with a change that --baseline decides about.'],
    [['decode < 3'], { 'baseline-command': 'x' }, 'that --baseline-command decides about'],
    [['decode < -5%'], { 'baseline-command': 'x' }, 'Expected --time-budget to be more than 0'],
    [['decode < -5%'], { baseline: true, 'baseline-command': 'x' }, 'but received both'],
    [[], { 'min-rounds': 5, 'max-rounds': 4 }, 'Expected --min-rounds to be at most --max-rounds (4)'],
  ])('refuses %j with %j', (conditions, values, message) => {
    const withFile = 'baseline' in values ? { ...values, baseline: file } : values;
    expect(() => parseGate({ ...withFile, 'fail-if': conditions }, 'speed')).toThrow(message);
  });

  it.each([
    ['kl > 0.02', 'speed', 'fdq bench does not measure kl', 'kl is measured by fdq bench quality.'],
    [
      'ttft > 5',
      'quality',
      'fdq bench quality does not',
      'ttft is measured by fdq bench and fdq bench serve.',
    ],
    ['load > 5', 'serve', 'fdq bench serve does not measure load', 'load is measured by fdq bench.'],
  ] as const)('refuses %s where nothing measures it: %s', (condition, kind, message, suggestion) => {
    expect(() => parseGate({ 'fail-if': [condition] }, kind)).toThrow(
      expect.objectContaining({
        code: 'usage',
        message: expect.stringContaining(message) as unknown,
        suggestions: [suggestion],
      }),
    );
  });

  it('says which conditions one repetition cannot decide', () => {
    const say = (...conditions: string[]): string | null =>
      describeSingleSample(parseGate({ 'fail-if': conditions }, 'serve'), '--repetitions');
    expect(say('error_rate > 0', 'ttft > 5', 'e2el > 9')).toBe(
      'One repetition says nothing about noise, so "ttft > 5", "e2el > 9" will be inconclusive: give --repetitions 5 or more.',
    );
    expect(say('error_rate > 0')).toBeNull();
  });

  it('takes what the command measures', () => {
    for (const { id, kinds } of METRICS) {
      for (const kind of kinds) {
        expect(parseGate({ 'fail-if': [`${id} > 1`] }, kind).conditions).toHaveLength(1);
      }
    }
  });

  describe('checkScenarios', () => {
    it('takes scenarios that the baseline has', () => {
      const gate = parseGate({ baseline: file, 'fail-if': ['decode[wint4] < -5%'] }, 'speed');
      expect(() => checkScenarios(gate, ['wint4 b=1', 'nvfp4 b=1'])).not.toThrow();
    });

    it('refuses a scenario that the baseline lacks, and a filter that matches none', () => {
      const gate = parseGate({ baseline: file, 'fail-if': ['decode < -5%'] }, 'speed');
      expect(() => checkScenarios(gate, ['wint4 b=1', 'nvfp4 b=1'])).toThrow(
        'has no decode of the scenario "nvfp4 b=1"',
      );
      const filtered = parseGate({ 'fail-if': ['decode[wint4] < 3'] }, 'speed');
      expect(() => checkScenarios(filtered, ['wint8 b=1'])).toThrow('No scenario of this run matches');
    });
  });
});
