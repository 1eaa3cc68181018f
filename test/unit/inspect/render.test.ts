import { createHash } from 'node:crypto';
import { Window } from 'happy-dom';
import { describe, expect, it } from 'vitest';
import { COLUMNS } from '../../../src/inspect/columns.js';
import { diffReports, renderDiff } from '../../../src/inspect/diff.js';
import { renderHtml } from '../../../src/inspect/render-html.js';
import { renderMarkdown } from '../../../src/inspect/render-markdown.js';
import { renderTable } from '../../../src/inspect/render-table.js';
import { sampleError, sampleReport, sampleRow } from './sample-report.js';

const HOSTILE = '</script><img src=x onerror=alert(1)>\u001b[31m\u202e|`\n"';
const ROWS = [
  sampleRow('model.layers.0.self_attn.q_proj', { error: sampleError(0.1), bytesAfter: 900 }),
  sampleRow('model.layers.0.mlp.down_proj', { error: sampleError(0.02), bytesAfter: 10_000 }),
  sampleRow('lm_head', { scheme: 'none', bytesAfter: 4096 }),
];

describe('the table', () => {
  it('shows every column where there is room', () => {
    const [head = '', first = ''] = renderTable(ROWS, COLUMNS, Infinity).split('\n');
    for (const { header } of COLUMNS) expect(head).toContain(header);
    expect(first).toContain('model.layers.0.self_attn.q_proj');
    expect(first).toContain('rule 6: everything else → wint4');
  });

  it.each([60, 80, 100, 140])('fits %i columns', (width) => {
    const lines = renderTable(ROWS, COLUMNS, width).split('\n');
    for (const line of lines) expect(line.length).toBeLessThanOrEqual(width);
    expect(lines).toHaveLength(ROWS.length + 1);
    expect(lines[0]).toMatch(/^Layer/);
    // The ends of names tell layers apart.
    expect(lines[1]).toMatch(/^\S*q_proj/);
    expect(lines[2]).toMatch(/^\S*down_proj/);
  });

  it('escapes control characters of names', () => {
    const text = renderTable([sampleRow(HOSTILE)], COLUMNS, Infinity);
    expect(text).toContain('\\u001b[31m\\u202e');
    expect(text).not.toContain('\u001b');
    expect(text.split('\n')).toHaveLength(2);
  });
});

describe('Markdown', () => {
  it('keeps hostile names in their cell', () => {
    const report = sampleReport([sampleRow(HOSTILE)], { warnings: ['auto_map'] });
    const lines = renderMarkdown(report, report.layers, COLUMNS).split('\n');
    const row = lines.find((line) => line.includes('script')) ?? '';
    expect(row.replaceAll('\\|', '').split('|')).toHaveLength(COLUMNS.length + 2);
    expect(row).toContain('\\<img');
    expect(lines).toContain('- auto\\_map');
  });
});

describe('the page', () => {
  const open = (html: string): Window => {
    const window = new Window({
      settings: { enableJavaScriptEvaluation: true, suppressInsecureJavaScriptEnvironmentWarning: true },
    });
    window.document.write(html);
    return window;
  };
  const names = (window: Window): readonly string[] =>
    [...window.document.querySelectorAll('tbody tr')]
      .filter((row) => !row.hasAttribute('hidden'))
      .map((row) => row.querySelector('td')?.textContent ?? '');

  it('sorts by a click and filters by a text', () => {
    const report = sampleReport(ROWS);
    const window = open(renderHtml(report, report.layers, COLUMNS));
    const { document } = window;
    const buttons = [...document.querySelectorAll('th button')];
    const click = (header: string): void =>
      (buttons.find((button) => button.textContent === header) as unknown as { click(): void }).click();
    expect(names(window)).toEqual(ROWS.map(({ name }) => name));
    click('After');
    expect(names(window)).toEqual([ROWS[1]?.name, 'lm_head', ROWS[0]?.name]);
    click('After');
    expect(names(window)).toEqual([ROWS[0]?.name, 'lm_head', ROWS[1]?.name]);
    // Rows without a value stay last.
    click('Rel. error');
    expect(names(window)).toEqual([ROWS[0]?.name, ROWS[1]?.name, 'lm_head']);
    click('Layer');
    expect(names(window)[0]).toBe('lm_head');
    const box = document.querySelector('input') as unknown as {
      value: string;
      dispatchEvent(e: unknown): void;
    };
    box.value = 'DOWN';
    box.dispatchEvent(new window.Event('input'));
    expect(names(window)).toEqual([ROWS[1]?.name]);
  });

  it('draws a bar before, a bar after and an error for each layer', () => {
    const report = sampleReport(ROWS);
    const { document } = open(renderHtml(report, report.layers, COLUMNS));
    const layers = [...document.querySelectorAll('svg g.layer')];
    expect(layers.map((layer) => layer.querySelectorAll('rect').length)).toEqual([3, 3, 2]);
    const height = (layer: number, bar: number): number =>
      Number(layers[layer]?.querySelectorAll('rect')[bar]?.getAttribute('height'));
    expect(height(1, 1) / height(0, 1)).toBeCloseTo(10_000 / 900, 1);
    expect(height(0, 2) / height(1, 2)).toBeCloseTo(5, 1);
  });

  it('runs no script and loads nothing but its own, whatever the names are', () => {
    const report = sampleReport([sampleRow(HOSTILE, { scheme: HOSTILE, rule: HOSTILE })], {
      warnings: [HOSTILE],
      model: { ...sampleReport([]).model, reference: HOSTILE },
    });
    const html = renderHtml(report, report.layers, COLUMNS);
    expect(html).not.toContain('<img');
    expect(html).not.toContain('\u001b');
    expect(html.match(/<script/g)).toHaveLength(1);
    expect(html).not.toMatch(/\b(?:src|href)=["']?http/);
    const script = /<script>([^]*)<\/script>/.exec(html)?.[1] ?? '';
    const digest = createHash('sha256').update(script).digest('base64');
    expect(html).toContain(`script-src 'sha256-${digest}'`);
    expect(html).toContain("default-src 'none'");
  });
});

describe('a comparison', () => {
  it('shows what changed, came and went', () => {
    const before = sampleReport([sampleRow('a'), sampleRow('b'), sampleRow('gone')]);
    const after = sampleReport([
      sampleRow('a'),
      sampleRow('b', { scheme: 'wint8', bytesAfter: 2304 }),
      sampleRow('new\u001b'),
    ]);
    const diff = diffReports(before, after);
    expect(diff.sameLayers).toBe(1);
    expect(diff.layers.map(({ name }) => name)).toEqual(['b', 'new\u001b', 'gone']);
    const text = renderDiff(diff);
    expect(text).toContain('  b: wint4 [64, 32] 1.25 KiB → wint8 [64, 32] 2.25 KiB');
    expect(text).toContain('+ new\\u001b: ');
    expect(text).toContain('- gone: ');
    expect(renderDiff(diffReports(before, before))).toContain('0 layers differ, 3 are the same.');
  });
});
