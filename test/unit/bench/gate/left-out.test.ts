import { describe, expect, it } from 'vitest';
import { leftOutOfLoad } from '../../../../src/bench/client/left-out.js';
import { parseServeBench, type ServeBenchOptions } from '../../../../src/bench/client/options.js';
import { refuseLeftOut, type LeftOut } from '../../../../src/bench/gate/left-out.js';
import { parseGateCondition } from '../../../../src/bench/gate/conditions.js';
import { checkScenarios, parseGate } from '../../../../src/bench/gate/options.js';
import { findMetric } from '../../../../src/bench/metrics.js';
import { leftOutOfQuality } from '../../../../src/bench/quality/left-out.js';
import { leftOutOfCases, leftOutOfScenario } from '../../../../src/bench/speed/left-out.js';
import { roundMetrics } from '../../../../src/bench/speed/scenario.js';
import { expandCases } from '../../../../src/bench/speed/cases.js';
import { BENCH_SERVE_FLAGS } from '../../../../src/cli/bench-serve-flags.js';
import { resolveSettings, valuesOf, type ParsedFlags } from '../../../../src/cli/settings.js';
import { reportOf } from '../../../helpers/bench-report.js';

const idsOf = (leftOut: readonly LeftOut[]): readonly string[] =>
  [...new Set(leftOut.flatMap(({ metrics }) => metrics))].sort();

function casesOf(promptTokens: readonly number[], steps: readonly number[]): ReturnType<typeof expandCases> {
  return expandCases({ promptTokens, steps, depths: [0], sequences: [1] });
}

function loadOf(flags: ParsedFlags): ServeBenchOptions {
  const sources = { flags: { url: 'http://h:1', ...flags }, environment: {}, configDir: '/nowhere' };
  return parseServeBench(valuesOf(resolveSettings(BENCH_SERVE_FLAGS, sources)));
}

describe('refuseLeftOut', () => {
  it('names condition, figure and flag', () => {
    const conditions = [parseGateCondition('prefill < 10'), parseGateCondition('tg < 30')];
    expect(() => refuseLeftOut(conditions, leftOutOfCases(casesOf([16], [0]), false))).toThrow(
      expect.objectContaining({
        code: 'usage',
        param: '--fail-if',
        message: '"tg < 30" is about decode, which is not measured: -n 0 leaves decoding out.',
        suggestions: ['Measure decode speed: -n 128.', 'Or leave the condition out.'],
      }),
    );
    expect(() => refuseLeftOut(conditions, leftOutOfCases(casesOf([16], [0, 4]), false))).not.toThrow();
  });
});

describe('figures that flags leave out', () => {
  it.each([
    [[0], [4], { prefill: { tokensPerSecond: 1, ttftMs: 1 } }, []],
    [[16], [0], { decode: { tokensPerSecond: 1, gapsMs: [1] } }, ['bandwidth_share', 'read_bandwidth']],
  ] as const)('are those of repetitions with p=%j n=%j', (promptTokens, steps, sample, more) => {
    const wanted = [...Object.keys(roundMetrics(sample)), ...more].sort();
    expect(idsOf(leftOutOfCases(casesOf(promptTokens, steps), false))).toEqual(wanted);
  });

  it('are those of loading, in turns', () => {
    const ids = idsOf(leftOutOfCases(casesOf([16], [4]), true));
    expect(ids).toContain('load_quantize');
    expect(ids).not.toContain('peak_rss');
    expect(leftOutOfCases(casesOf([16], [4]), false)).toEqual([]);
  });

  it.each([
    [{}, ['e2el_queued', 'e2el_queued_p99', 'queue', 'queue_p99', 'request_goodput']],
    [{ 'request-rate': '4', goodput: ['ttft:500'] }, []],
    [
      { 'request-rate': '4', goodput: ['ttft:500'], 'random-output-len': '1' },
      ['itl_p50', 'itl_p90', 'itl_p99', 'tpot', 'tpot_p99'],
    ],
    [
      { 'request-rate': '4', goodput: ['ttft:500'], 'random-output-len': '1', 'random-range-ratio': '0.5' },
      [],
    ],
  ])('are those of a load: %j', (values, ids) => {
    expect(idsOf(leftOutOfLoad(loadOf(values)))).toEqual(ids);
  });

  it.each([
    [{ layers: true }, undefined, []],
    [{ layers: false }, undefined, ['layer_frobenius', 'layer_sqnr_min']],
    [{ layers: true, reference: null }, undefined, ['kl', 'kl_p99', 'top1']],
    [{ layers: true, text: 'a.txt' }, undefined, ['accuracy']],
    [{ layers: true, prompts: 'a.jsonl' }, undefined, ['kl', 'kl_p99', 'nll', 'perplexity', 'top1']],
    [{ layers: true }, { text: true, prompts: false }, ['accuracy']],
  ])('are those of a text: %j %j', (options, inputs, ids) => {
    expect(idsOf(leftOutOfQuality(options, inputs))).toEqual(ids);
  });

  it('are metrics of the command', () => {
    const cases = [...leftOutOfCases(casesOf([0], [4]), true), ...leftOutOfCases(casesOf([16], [0]), true)];
    const kinds = [
      ['speed', cases],
      ['serve', leftOutOfLoad(loadOf({ 'random-output-len': '1' }))],
      ['quality', leftOutOfQuality({ layers: false, reference: null }, { text: false, prompts: false })],
    ] as const;
    for (const [kind, leftOut] of kinds) {
      for (const id of idsOf(leftOut))
        expect([id, findMetric(id)?.kinds]).toEqual([id, expect.arrayContaining([kind])]);
    }
  });
});

describe('checkScenarios', () => {
  const cases = casesOf([16], [0, 4]);
  const names = ['wint4 p=16 n=0 d=0 b=1', 'wint4 p=16 n=4 d=0 b=1'];
  const check = (condition: string, baseline?: string): void =>
    checkScenarios(
      {
        ...parseGate({}, 'speed'),
        conditions: [parseGateCondition(condition)],
        baseline:
          baseline === undefined
            ? null
            : { file: 'old.json', report: reportOf({ [baseline]: { decode: [1, 2] } }) },
      },
      names,
      (name) => leftOutOfScenario(name, cases, false),
    );

  it('refuses a condition whose scenarios all leave its figure out', () => {
    expect(() => check('decode[n=0] < 30')).toThrow('-n 0 leaves decoding out');
    expect(() => check('decode[n=4] < 30')).not.toThrow();
    expect(() => check('decode < 30')).not.toThrow();
  });

  it('wants of a baseline only what is measured', () => {
    expect(() => check('decode < -5%', names[1])).not.toThrow();
    expect(() => check('decode < -5%', 'wint8 p=16 n=4 d=0 b=1')).toThrow('has no decode of the scenario');
  });
});
