import { describe, expect, it } from 'vitest';
import { UserError } from '../../../src/errors.js';
import {
  filterRows,
  findFailures,
  parseCondition,
  parseSorting,
  sortRows,
} from '../../../src/inspect/conditions.js';
import { parseView } from '../../../src/inspect/view.js';
import { sampleError, sampleRow } from './sample-report.js';

const ROWS = [
  sampleRow('model.layers.10.mlp.up_proj', { error: sampleError(0.2), bytesAfter: 3 * 1024 ** 2 }),
  sampleRow('model.layers.2.mlp.down_proj', { error: sampleError(0.01), bytesAfter: 1000 }),
  sampleRow('lm_head', { scheme: 'none', precision: 'W16A16' }),
];

function namesWhere(text: string): readonly string[] {
  return filterRows(ROWS, [parseCondition(text, '--filter')]).map(({ name }) => name);
}

describe('a condition', () => {
  it.each([
    ['sqnr<15dB', ['model.layers.10.mlp.up_proj']],
    ['sqnr < 15', ['model.layers.10.mlp.up_proj']],
    ['sqnr>=15dB', ['model.layers.2.mlp.down_proj']],
    ['frobenius>5%', ['model.layers.10.mlp.up_proj']],
    ['frobenius>=0.2', ['model.layers.10.mlp.up_proj']],
    ['max_abs<=5e-3', ['model.layers.2.mlp.down_proj']],
    ['saturated=0', ['model.layers.10.mlp.up_proj', 'model.layers.2.mlp.down_proj']],
    ['bytes>1MiB', ['model.layers.10.mlp.up_proj']],
    ['bytes<=1KB', ['model.layers.2.mlp.down_proj']],
    ['bytes_after!=1000', ['model.layers.10.mlp.up_proj', 'lm_head']],
    ['scheme=NONE', ['lm_head']],
    ['scheme!=none', ['model.layers.10.mlp.up_proj', 'model.layers.2.mlp.down_proj']],
    ['name~\\.(up|down)_proj$', ['model.layers.10.mlp.up_proj', 'model.layers.2.mlp.down_proj']],
    ['Bytes-Before == 4KiB', ROWS.map(({ name }) => name)],
  ])('%s', (text, names) => expect(namesWhere(text)).toEqual(names));

  it.each([
    ['sqnr', /comparison like/],
    ['sqnr<', /comparison like/],
    ['sqn<15', /Expected --fail-if to name a column .*received "sqn"/],
    ['sqnr<15MiB', /decibels like 15dB/],
    ['frobenius>5dB', /a share like/],
    ['bytes>many', /a size like/],
    ['saturated~3', /as it is a number/],
    ['name<3', /as it is a text/],
    ['name~(', /regular expression/],
  ])('%s is refused', (text, message) => {
    expect(() => parseCondition(text, '--fail-if')).toThrow(message);
    expect(() => parseCondition(text, '--fail-if')).toThrow(UserError);
  });

  it('names each layer it holds for, with its value', () => {
    const failures = findFailures(
      ROWS,
      ['sqnr<15dB', 'bytes<1k'].map((text) => parseCondition(text, '--fail-if')),
    );
    expect(failures).toEqual([
      'model.layers.10.mlp.up_proj: sqnr 14.0 dB (sqnr<15dB)',
      'model.layers.2.mlp.down_proj: bytes_after 1000 B (bytes<1k)',
    ]);
  });
});

describe('sorting', () => {
  const order = (text: string): readonly string[] =>
    sortRows(ROWS, parseSorting(text)).map(({ name }) => name);

  it('puts the largest numbers first, and rows without one last', () => {
    const [up, down, head] = ROWS.map(({ name }) => name);
    expect(order('frobenius')).toEqual([up, down, head]);
    expect(order('sqnr:desc')).toEqual([down, up, head]);
    expect(order('sqnr:asc')).toEqual([up, down, head]);
  });

  it('compares texts as people do', () => {
    expect(order('name')).toEqual(['lm_head', 'model.layers.2.mlp.down_proj', 'model.layers.10.mlp.up_proj']);
    expect(() => parseSorting('name:up')).toThrow(/name:desc|column:asc/);
  });
});

describe('a view', () => {
  const none = {
    measure: undefined,
    quantization: undefined,
    'fail-if': undefined,
    filter: undefined,
    sort: undefined,
    explain: undefined,
    diff: undefined,
    markdown: undefined,
    html: undefined,
    model: './model',
    'save-quantization-config': undefined,
    'max-weight-bytes': undefined,
    'max-error': undefined,
  };

  it('needs --measure for what is measured', () => {
    expect(() => parseView({ ...none, 'fail-if': ['sqnr<15dB'] })).toThrow(/only after measuring/);
    expect(() => parseView({ ...none, sort: 'sqnr' })).toThrow(/only after measuring/);
    expect(parseView({ ...none, sort: 'sqnr', measure: true }).sorting?.column.id).toBe('sqnr');
    expect(parseView({ ...none, 'fail-if': ['bytes>1GiB'] }).failIf).toHaveLength(1);
  });

  it('has one output', () => {
    expect(() => parseView({ ...none, explain: 'lm_head', diff: './other' })).toThrow(/--explain .*--diff/);
    expect(() => parseView({ ...none, diff: './other', html: 'page.html' })).toThrow(/--diff .*--html/);
    expect(parseView({ ...none, html: 'page.html', markdown: true }).html).toBe('page.html');
  });

  it('names a page that cannot be written', () => {
    expect(() => parseView({ ...none, html: '/no/such/folder/page.html' })).toThrow(
      'Expected --html to name a file that can be written',
    );
  });
});
