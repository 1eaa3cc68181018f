import stringWidth from 'string-width';
import { describe, expect, it } from 'vitest';
import { renderMarkdown } from '../../../../src/bench/report/markdown.js';
import { renderTable } from '../../../../src/bench/report/table.js';
import type { BenchReport, GateResult } from '../../../../src/bench/report.js';
import {
  HOSTILE,
  qualityReport,
  sampleCheck,
  sampleMetric,
  sampleReport,
  sampleScenario,
  speedReport,
} from './sample-report.js';

const GATE: GateResult = {
  verdict: 'fail',
  baseline: 'base.json',
  checks: [
    sampleCheck(),
    sampleCheck({ verdict: 'inconclusive', scenario: 'none', reason: 'Too noisy.' }),
    sampleCheck({
      verdict: 'pass',
      condition: 'kl > 0.02',
      metric: 'kl',
      value: 0.001,
      baselineValue: null,
      change: null,
      changeInterval: null,
    }),
  ],
};

function hostileReport(): BenchReport {
  const scenario = sampleScenario(HOSTILE, [sampleMetric('decode', 1), sampleMetric(HOSTILE, 2)], {
    parameters: { [HOSTILE]: HOSTILE },
  });
  const check = sampleCheck({ condition: HOSTILE, scenario: HOSTILE, metric: HOSTILE, reason: HOSTILE });
  const report = sampleReport([scenario, { ...scenario, name: `${HOSTILE}2` }], {
    warnings: [HOSTILE],
    gate: { verdict: 'fail', baseline: HOSTILE, checks: [check] },
  });
  return { ...report, environment: { ...report.environment, cpu: HOSTILE } };
}

describe('the table', () => {
  it('has a row for each scenario and a column for each figure', () => {
    const lines = renderTable(qualityReport(), Infinity).split('\n');
    expect(lines[0]).toBe('fdq bench: Quality');
    const head = lines.findIndex((line) => line.startsWith('Scenario'));
    expect(lines[head]?.split(/ {2,}/)).toEqual(['Scenario', 'weight_bytes', 'perplexity', 'kl', 'top1']);
    expect(lines[head + 1]?.trim().split(/ {2,}/)).toEqual(['nats', '%']);
    expect(lines[head + 3]?.split(/ {2,}/)).toEqual(['wint8', '591.3 MiB', '12.31', '0.001100', '99.89']);
    expect(lines).toContain('window    512');
  });

  it.each([80, 100, 140])('fits %i columns and leaves out no figure', (width) => {
    const report = { ...speedReport(), gate: GATE };
    const text = renderTable(report, width);
    const [figures = ''] = text.split('Gate:');
    for (const line of figures.split('\n')) expect(stringWidth(line)).toBeLessThanOrEqual(width);
    for (const { id } of report.scenarios[0]?.metrics ?? []) expect(figures).toContain(id);
  });

  it('lists the figures of a single scenario with their intervals', () => {
    const metrics = [sampleMetric('decode', 30, 31, 32), sampleMetric('error_rate', 0.005)];
    const text = renderTable(sampleReport([sampleScenario('one', metrics)]), 100);
    expect(text).toMatch(/^decode +31\.0 ± 1\.0 {2}tok\/s +28\.5 … 33\.5 +3 {2}Decode speed/m);
    expect(text).toMatch(/^error_rate +0\.50 {2}% +– +1 /m);
    const once = renderTable(sampleReport([sampleScenario('one', metrics.slice(1))]), 100);
    expect(once).not.toContain('95 %');
  });

  it('shows what was checked', () => {
    const text = renderTable({ ...qualityReport(), gate: GATE }, Infinity);
    expect(text).toContain('Gate: fail. 1 of 3 checks failed, 1 of 3 inconclusive.');
    expect(text).toMatch(
      /^fail +decode < -5% +wint4 t=2 +28\.0 tok\/s +31\.2 tok\/s +-10\.3 % \(-12\.0 % … -8\.4 %\)$/m,
    );
    expect(text).toMatch(/^pass +kl > 0\.02 +wint4 t=2 +0\.001000 nats +– +–$/m);
  });

  it('says that nothing or not everything was measured', () => {
    const text = renderTable(sampleReport([], { partial: true }), 80);
    expect(text).toContain('Nothing was measured.');
    expect(text).toContain('incomplete');
  });

  it('shows a dash where a scenario lacks a figure, and figures that are no numbers', () => {
    const report = sampleReport([
      sampleScenario('a', [sampleMetric('decode', 1)]),
      sampleScenario('b', [sampleMetric('perplexity', Infinity)]),
    ]);
    const text = renderTable(report, Infinity);
    expect(text).toMatch(/^a +1\.0 +–$/m);
    expect(text).toMatch(/^b +– +Infinity$/m);
  });

  it('escapes control characters and keeps rows on their line', () => {
    const text = renderTable(hostileReport(), Infinity);
    expect(text).not.toMatch(/(?!\n)[\p{Cc}\p{Cf}]/u);
    expect(text.split('\n').filter((line) => line.startsWith('=1+1'))).toHaveLength(3);
  });
});

describe('Markdown', () => {
  it('opens with the verdict, shows what failed and folds what passed', () => {
    const text = renderMarkdown({ ...speedReport(), gate: GATE });
    expect(text.split('\n')[0]).toBe('## fdq bench: Speed – ❌ fail');
    const [shown = '', folded = ''] = text.split('<details><summary>1 passed</summary>');
    expect(shown).toContain('| ❌ fail | decode \\< -5% | wint4 t=2 | 28.0 tok/s | 31.2 tok/s |');
    expect(shown).toContain('⚠️ inconclusive');
    expect(shown).not.toContain('✅');
    expect(folded).toContain('| ✅ pass | kl \\> 0.02 |');
    expect(text.match(/<details>/g)).toHaveLength(text.match(/<\/details>/g)?.length ?? 0);
    expect(text).toContain('| none kv=auto t=2 d=0 b=1 | itl | 1000 |');
  });

  it('has as many cells in every row as its heading', () => {
    for (const report of [{ ...hostileReport(), partial: true }, speedReport(), sampleReport([])]) {
      const tables = renderMarkdown(report)
        .split(/\n(?!\|)/)
        .map((part) => part.split('\n').filter((line) => line.startsWith('|')))
        .filter((rows) => rows.length > 0);
      for (const [head = '', ...rows] of tables) {
        const cells = (row: string): number => row.replaceAll(/\\./g, '').split('|').length;
        for (const row of rows) expect(cells(row)).toBe(cells(head));
      }
    }
  });

  it('shows hostile names as text', () => {
    const text = renderMarkdown(hostileReport());
    expect(text).not.toMatch(/(?<!\\)<(?!\/?(details|summary)>)/);
    expect(text).not.toMatch(/(?!\n)[\p{Cc}\p{Cf}]/u);
    expect(text).not.toMatch(/^::/m);
  });
});
