import { Window } from 'happy-dom';
import { describe, expect, it } from 'vitest';
import { renderGhaBenchmark } from '../../../../src/bench/report/gha-benchmark.js';
import { renderJunit } from '../../../../src/bench/report/junit.js';
import { renderOpenMetrics } from '../../../../src/bench/report/openmetrics.js';
import { renderCsv, renderJson, renderJsonLines } from '../../../../src/bench/report/records.js';
import type { BenchReport } from '../../../../src/bench/report.js';
import {
  HOSTILE,
  qualityReport,
  sampleCheck,
  sampleMetric,
  sampleReport,
  sampleScenario,
  speedReport,
} from './sample-report.js';

const REPORT = sampleReport(
  [
    sampleScenario(
      'fast',
      [sampleMetric('decode', 30, 32), sampleMetric('kl', 0.5), sampleMetric('read_bandwidth', 9)],
      {
        parameters: { threads: 2, draft: false },
      },
    ),
    sampleScenario(HOSTILE, [sampleMetric('decode', 1)], { parameters: { label: HOSTILE, none: null } }),
  ],
  {
    gate: {
      verdict: 'fail',
      baseline: null,
      checks: [
        sampleCheck({ scenario: 'fast', verdict: 'pass' }),
        sampleCheck({ scenario: 'fast', condition: 'decode < 40' }),
        sampleCheck({ scenario: 'fast', metric: 'kl', verdict: 'inconclusive', reason: 'Noisy.' }),
        sampleCheck({ scenario: 'gone', condition: HOSTILE, reason: HOSTILE, value: null }),
      ],
    },
  },
);

/** Fields of RFC 4180. */
function parseCsv(text: string): readonly (readonly string[])[] {
  expect(text.endsWith('\r\n')).toBe(true);
  const rows: string[][] = [[]];
  const fields = /(?:"((?:[^"]|"")*)"|([^",\r\n]*))(,|\r\n)/gy;
  for (const [, quoted, bare, end] of text.matchAll(fields)) {
    rows.at(-1)?.push(quoted?.replaceAll('""', '"') ?? bare ?? '');
    if (end === '\r\n') rows.push([]);
  }
  return rows.slice(0, -1);
}

describe('JSON', () => {
  it('is the report', () => {
    expect(JSON.parse(renderJson(REPORT))).toEqual(REPORT);
  });

  it('writes figures that JSON lacks as strings', () => {
    const report = sampleReport([sampleScenario('a', [sampleMetric('perplexity', Infinity)])]);
    expect(renderJson(report)).toContain('"value": "Infinity"');
    expect(renderJsonLines(report)).toContain('"value":"Infinity"');
  });

  it('has a line for each figure, with what it depends on', () => {
    const lines = renderJsonLines(REPORT).split('\n');
    expect(lines.pop()).toBe('');
    const records = lines.map((line) => JSON.parse(line) as Record<string, unknown>);
    expect(records).toHaveLength(4);
    expect(records[0]).toMatchObject({
      kind: 'speed',
      scenario: 'fast',
      metric: 'decode',
      unit: 'tok/s',
      better: 'higher',
      value: 31,
      samples: [30, 32],
      verdict: 'fail',
      parameters: { threads: 2 },
      environment: { fdq: '0.1.0' },
    });
    expect(records.map(({ verdict }) => verdict)).toEqual(['fail', 'inconclusive', null, null]);
    expect(renderJsonLines(sampleReport([]))).toBe('');
  });
});

describe('CSV', () => {
  it('reads back as it was, but for formulas', () => {
    const [head = [], ...rows] = parseCsv(renderCsv(REPORT));
    expect(rows).toHaveLength(4);
    for (const row of rows) expect(row).toHaveLength(head.length);
    const cell = (row: number, name: string): string | undefined => rows[row]?.[head.indexOf(name)];
    expect(cell(0, 'value')).toBe('31');
    expect(cell(0, 'samples')).toBe('2');
    expect(Number(cell(0, 'low'))).toBeCloseTo(REPORT.scenarios[0]?.metrics[0]?.interval?.[0] ?? NaN);
    expect(cell(1, 'low')).toBe('');
    expect(cell(0, 'parameters.draft')).toBe('false');
    expect(cell(3, 'parameters.draft')).toBe('');
    expect(cell(3, 'scenario')).toBe(`'${HOSTILE}`);
    expect(cell(3, 'parameters.label')).toBe(`'${HOSTILE}`);
    expect(cell(0, 'environment.commit')).toBe(REPORT.environment.commit);
  });

  it('leaves negative figures alone', () => {
    const report = sampleReport([sampleScenario('a', [sampleMetric('layer_sqnr_min', -3)])]);
    const [head = [], row = []] = parseCsv(renderCsv(report));
    expect(row[head.indexOf('value')]).toBe('-3');
  });

  it('is a heading for an empty report', () => {
    expect(parseCsv(renderCsv(sampleReport([])))).toHaveLength(1);
  });
});

describe('JUnit', () => {
  interface Node {
    getAttribute(name: string): string | null;
    textContent: string;
  }
  const parse = (report: BenchReport): ((selector: string) => readonly Node[]) => {
    const xml = renderJunit(report);
    // XML 1.0 allows no other characters.

    expect(xml).not.toMatch(/[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\u{10000}-\u{10ffff}]/u);
    const { DOMParser } = new Window();
    const document = new DOMParser().parseFromString(xml, 'application/xml');
    expect(document.querySelectorAll('parsererror')).toHaveLength(0);
    return (selector) => [...document.querySelectorAll(selector)];
  };

  it('has a suite for each scenario and a case for each figure', () => {
    const find = parse(REPORT);
    expect(find('testsuite').map((suite) => suite.getAttribute('tests'))).toEqual(['3', '1', '1']);
    expect(find('testcase').map((each) => each.getAttribute('name'))).toEqual([
      'decode',
      'read_bandwidth',
      'kl',
      'decode',
      'decode',
    ]);
    expect(find('testsuites')[0]?.getAttribute('failures')).toBe('2');
    expect(find('testsuites')[0]?.getAttribute('skipped')).toBe('1');
    expect(find('property[name="threads"]')).toHaveLength(1);
    expect(find('system-out')[0]?.textContent).toContain('Samples: 30 32');
  });

  it('fails a figure for what failed of it, and skips what is inconclusive', () => {
    const find = parse(REPORT);
    const [first, second] = find('failure');
    expect(first?.getAttribute('message')).toBe('decode < 40: The whole interval is below -5 %.');
    expect(second?.textContent).toContain('</script><img src=x onerror=alert(1)>');
    expect(find('skipped').map((each) => each.getAttribute('message'))).toEqual(['decode < -5%: Noisy.']);
  });

  it('is well formed when empty', () => {
    expect(parse(sampleReport([]))('testsuites')[0]?.getAttribute('tests')).toBe('0');
  });
});

describe('github-action-benchmark', () => {
  interface Entry {
    readonly name: string;
    readonly unit: string;
    readonly value: number;
    readonly range?: string;
    readonly extra?: string;
  }
  const entries = (report: BenchReport, direction: 'bigger' | 'smaller'): readonly Entry[] =>
    JSON.parse(renderGhaBenchmark(report, direction)) as readonly Entry[];

  it('has a file for each direction', () => {
    expect(entries(REPORT, 'bigger')[0]).toEqual({
      name: 'decode (fast)',
      unit: 'tok/s',
      value: 31,
      range: `± ${Math.SQRT2}`,
      extra: expect.stringContaining('n = 2') as string,
    });
    expect(entries(REPORT, 'smaller')).toEqual([{ name: 'kl (fast)', unit: 'nats', value: 0.5 }]);
  });

  it('has one name for each figure, and numbers only', () => {
    const all = (['bigger', 'smaller'] as const).flatMap((direction) => entries(speedReport(), direction));
    expect(new Set(all.map(({ name }) => name)).size).toBe(all.length);
    expect(all).toHaveLength(speedReport().scenarios.flatMap(({ metrics }) => metrics).length);
    const broken = sampleReport([sampleScenario('a', [sampleMetric('perplexity', NaN)])]);
    expect(entries(broken, 'smaller')).toEqual([]);
  });
});

describe('OpenMetrics', () => {
  it('has a gauge for each figure and ends as the format asks', async () => {
    const text = await renderOpenMetrics(qualityReport());
    expect(text).toContain('# TYPE fdq_bench_kl gauge\n');
    expect(text).toContain('fdq_bench_kl{scenario="wint8"} 0.0011\n');
    expect(text.endsWith('# EOF\n')).toBe(true);
  });

  it('keeps hostile names in their label and leaves out figures without a name', async () => {
    const metrics = [sampleMetric('decode', 1), sampleMetric(HOSTILE, 2)];
    const text = await renderOpenMetrics(sampleReport([sampleScenario(HOSTILE, metrics)]));
    expect(text.split('\n')).toHaveLength(5);
    expect(text).toMatch(/^fdq_bench_decode\{scenario="(?:[^"\\]|\\.)*"\} 1$/m);
  });
});
