import { createHash } from 'node:crypto';
import { Window } from 'happy-dom';
import { describe, expect, it } from 'vitest';
import { renderHtml } from '../../../../src/bench/report/html/page.js';
import { findFront } from '../../../../src/bench/report/html/pictures.js';
import {
  chooseScale,
  doublingScale,
  linearScale,
  logScale,
  percentileScale,
} from '../../../../src/bench/report/html/scale.js';
import type { BenchReport } from '../../../../src/bench/report.js';
import {
  HOSTILE,
  qualityReport,
  sampleCheck,
  sampleDistribution,
  sampleMetric,
  sampleReport,
  sampleScenario,
  speedReport,
} from './sample-report.js';

function open(report: BenchReport): Window {
  const window = new Window({
    settings: { enableJavaScriptEvaluation: true, suppressInsecureJavaScriptEnvironmentWarning: true },
  });
  window.document.write(renderHtml(report));
  return window;
}

function titles({ document }: Window): readonly string[] {
  return [...document.querySelectorAll('figcaption')].map(({ textContent }) => textContent);
}

describe('the pictures', () => {
  it('are those that the report has data for', () => {
    expect(titles(open(speedReport()))).toEqual(['Time between tokens', 'Throughput over concurrency']);
    expect(titles(open(qualityReport()))).toEqual(['Quality over bytes']);
    expect(titles(open(sampleReport([])))).toEqual([]);
    const one = sampleScenario('one', [
      sampleMetric('decode', 1),
      sampleMetric('weight_bytes', 1),
      sampleMetric('kl', 1),
    ]);
    expect(titles(open(sampleReport([one])))).toEqual([]);
  });

  it('draw a line for each scheme over the numbers of requests', () => {
    const { document } = open(speedReport());
    const figure = document.querySelectorAll('figure')[1];
    const lines = [...(figure?.querySelectorAll('path.line') ?? [])];
    expect(lines).toHaveLength(5);
    for (const line of lines) expect(line.getAttribute('d')).toMatch(/^M[\d.]+ [\d.]+( L[\d.]+ [\d.]+){2}$/);
    expect(figure?.querySelector('.legend')?.textContent).toContain('scheme=wint8');
    const ticks = [...(figure?.querySelectorAll('text[text-anchor="middle"]') ?? [])].map(
      (each) => each.textContent,
    );
    expect(ticks.slice(0, 3)).toEqual(['1', '8', '32']);
  });

  it('put more bytes to the right and more loss up, with the front through the best', () => {
    const { document } = open(qualityReport());
    const dots = [...document.querySelectorAll('figure circle')].map((dot) => ({
      x: Number(dot.getAttribute('cx')),
      y: Number(dot.getAttribute('cy')),
    }));
    const [none, wint8, fp8, , wint4] = dots;
    expect(none?.x).toBeGreaterThan(wint8?.x ?? 0);
    expect(wint4?.y).toBeLessThan(fp8?.y ?? 0);
    expect(fp8?.y).toBeLessThan(wint8?.y ?? 0);
    expect(document.querySelectorAll('path.front')).toHaveLength(1);
    const labels = [...document.querySelectorAll('text.label')].map(({ textContent }) => textContent);
    expect([...labels].sort()).toEqual(['block_wise_fp8', 'none', 'wint4', 'wint4:g128', 'wint8']);
  });

  it('hold no coordinates that are no numbers', () => {
    const broken = [Infinity, NaN, 0, -1].map((value, index) =>
      sampleScenario(
        `s${index}`,
        ['decode', 'kl', 'weight_bytes'].map((id) => sampleMetric(id, value)),
        {
          parameters: { batch_size: value },
          distributions: [{ ...sampleDistribution('itl', 0), min: NaN, count: 0 }],
        },
      ),
    );
    for (const report of [sampleReport(broken), speedReport(), qualityReport()]) {
      const html = renderHtml(report);
      const svgs = html.match(/<svg[^]*?<\/svg>/g) ?? [];
      for (const svg of svgs)
        expect(svg.replaceAll(/<title>[^]*?<\/title>/g, '')).not.toMatch(/NaN|Infinity|undefined/);
    }
  });

  it('keep to points that no other beats', () => {
    const point = (x: number, y: number): { x: number; y: number; tip: string } => ({ x, y, tip: '' });
    const points = [point(3, 1), point(1, 5), point(2, 6), point(2, 3), point(3, 1), point(4, 2)];
    expect(findFront(points).map(({ x, y }) => [x, y])).toEqual([
      [1, 5],
      [2, 3],
      [3, 1],
    ]);
  });
});

describe('scales', () => {
  it('end at round ticks around the values', () => {
    expect(linearScale(0, 311).ticks).toEqual([0, 100, 200, 300, 400]);
    expect(linearScale(0, 0).ticks.length).toBeGreaterThan(1);
    expect(linearScale(-3, 4).position(-3)).toBeGreaterThanOrEqual(0);
    expect(logScale(2, 800).ticks).toEqual([1, 10, 100, 1000]);
    expect(doublingScale([8, 1, 64]).position(8)).toBeCloseTo(0.5);
    expect(doublingScale([4]).position(4)).toBe(0);
    expect(percentileScale(99).position(90)).toBeCloseTo(0.5);
  });

  it('are logarithmic for values of different magnitude, zeros apart', () => {
    expect(chooseScale([10, 30]).ticks[0]).toBe(0);
    expect(chooseScale([0.001, 0.1]).position(0.01)).toBeCloseTo(0.5);
    const { position, ticks } = chooseScale([0, 0.001, 0.1]);
    expect(ticks[0]).toBe(0);
    expect(position(0)).toBe(0);
    expect(position(0.001)).toBeGreaterThan(0.1);
    expect(position(0.1)).toBeCloseTo(1);
    expect(chooseScale([-1, 1000]).position(-1)).toBeGreaterThanOrEqual(0);
  });
});

describe('the page', () => {
  const checks = [sampleCheck(), sampleCheck({ verdict: 'inconclusive', scenario: 'none', value: 3 })];
  const judged = { ...speedReport(), gate: { verdict: 'fail' as const, checks, baseline: null } };

  it('opens with the verdict, and its tables sort and filter', () => {
    const window = open(judged);
    const { document } = window;
    expect(document.querySelector('.gate.fail')?.textContent).toBe(
      'Gate: fail. 1 of 2 checks failed, 1 of 2 inconclusive.',
    );
    const [checkTable, figures] = [...document.querySelectorAll('table')];
    const firstCells = (): readonly string[] =>
      [...(figures?.querySelectorAll('tbody tr') ?? [])]
        .filter((row) => !row.hasAttribute('hidden'))
        .map((row) => row.querySelector('td')?.textContent ?? '');
    const heading = [...(figures?.querySelectorAll('th button') ?? [])].find(
      (each) => each.textContent === 'decode (tok/s)',
    );
    (heading as unknown as { click(): void }).click();
    expect(firstCells()[0]).toBe('wint4 kv=auto t=2 d=0 b=32');
    expect(checkTable?.querySelector('tbody td')?.textContent).toBe('fail');
    const box = document.querySelector('input') as unknown as {
      value: string;
      dispatchEvent(event: unknown): void;
    };
    box.value = 'WINT8';
    box.dispatchEvent(new window.Event('input'));
    expect(firstCells()).toHaveLength(3);
  });

  it('lists the figures of a single scenario', () => {
    const { document } = open(sampleReport(speedReport().scenarios.slice(0, 1)));
    const rows = [...document.querySelectorAll('tbody tr')].map(
      (row) => row.querySelector('td')?.textContent,
    );
    expect(rows).toContain('decode (tok/s)');
    expect(rows).toContain('weight_bytes');
  });

  it('runs no script and loads nothing but its own, whatever the names are', () => {
    const scenarios = [1, 2].map((size) =>
      sampleScenario(
        `${HOSTILE}${size}`,
        ['decode', 'kl', 'weight_bytes', HOSTILE].map((id) => sampleMetric(id, size)),
        {
          parameters: { batch_size: size, [HOSTILE]: HOSTILE },
          distributions: [sampleDistribution(HOSTILE, 1)],
        },
      ),
    );
    const check = sampleCheck({ condition: HOSTILE, scenario: HOSTILE, metric: HOSTILE, reason: HOSTILE });
    const html = renderHtml(
      sampleReport(scenarios, {
        warnings: [HOSTILE],
        gate: { verdict: 'fail', checks: [check], baseline: HOSTILE },
      }),
    );
    expect(html).not.toContain('<img');
    expect(html).not.toContain('\u001b');
    expect(html.match(/<script/g)).toHaveLength(1);
    expect(html).not.toMatch(/\b(?:src|href)=["']?http/);
    for (const tag of ['script', 'style']) {
      const text = new RegExp(`<${tag}>([^]*)</${tag}>`).exec(html)?.[1] ?? '';
      expect(html).toContain(`${tag}-src 'sha256-${createHash('sha256').update(text).digest('base64')}'`);
    }
    expect(html).toContain("default-src 'none'");
  });
});
