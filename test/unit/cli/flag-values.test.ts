import { describe, expect, it } from 'vitest';
import type { FlagRow } from '../../../src/cli/flag-row.js';
import { convertValue, describeSetting } from '../../../src/cli/flag-values.js';
import { UserError } from '../../../src/errors.js';
import { fc } from '../../helpers/properties.js';

function row(kind: FlagRow['kind'], rest: Partial<FlagRow> = {}): FlagRow {
  return { kind, group: 'SERVER', summary: 'A test.', ...rest };
}

function failure(run: () => unknown): UserError {
  try {
    run();
  } catch (error) {
    if (error instanceof UserError) return error;
    throw error;
  }
  throw new Error('expected a UserError');
}

describe('convertValue', () => {
  it.each([
    ['size', '8GiB', 8 * 1024 ** 3],
    ['size', '8g', 8 * 1024 ** 3],
    ['size', '1.5 MB', 1_500_000],
    ['size', '4096', 4096],
    ['length', '32k', 32_768],
    ['length', '2K', 2048],
    ['length', '4096', 4096],
    ['length', '1m', 1_048_576],
    ['integer', '12', 12],
    ['integer', '-1', -1],
    ['number', '0.5', 0.5],
    ['port', '0', 0],
    ['port', '65535', 65_535],
    ['boolean', 'TRUE', true],
    ['boolean', '0', false],
    ['text', ' as is ', ' as is '],
  ] as const)('%s %j is %j', (kind, text, value) => {
    expect(convertValue(row(kind), '--x', text)).toBe(value);
  });

  it.each([
    ['size', '8 apples'],
    ['size', '-1'],
    ['size', '1e400'],
    ['length', '32kk'],
    ['length', ''],
    ['integer', '1.5'],
    ['integer', '0x10'],
    ['integer', '9007199254740993'],
    ['number', 'NaN'],
    ['number', 'Infinity'],
    ['number', ''],
    ['port', '65536'],
    ['port', '-1'],
    ['boolean', 'maybe'],
  ] as const)('%s refuses %j and repeats it', (kind, text) => {
    const error = failure(() => convertValue(row(kind), '--x', text));
    expect(error.exitCode).toBe(2);
    expect(error.message).toContain(`received ${JSON.stringify(text)}`);
    expect(error.message).toContain('--x');
    expect(error.suggestions.length).toBeGreaterThan(0);
  });

  it('keeps numbers inside the range of the row', () => {
    const ranged = row('integer', { min: 1, max: 4 });
    expect(convertValue(ranged, '--x', '4')).toBe(4);
    expect(failure(() => convertValue(ranged, '--x', '5')).message).toContain('from 1 to 4');
    expect(failure(() => convertValue(row('size', { min: 1 }), '--x', '0')).message).toContain('a size');
  });

  it('tells refused choices from unknown ones', () => {
    const choice = row('choice', { options: ['auto', 'cpu'], refused: { cuda: 'no GPU here' } });
    expect(convertValue(choice, '--device', 'cpu')).toBe('cpu');
    expect(failure(() => convertValue(choice, '--device', 'cuda')).message).toBe(
      '--device cuda is not supported: no GPU here.',
    );
    expect(failure(() => convertValue(choice, '--device', 'cqu')).suggestions).toEqual(['Did you mean cpu?']);
  });

  it('explains the variable Kubernetes sets for a Service named fdq', () => {
    const error = failure(() => convertValue(row('port'), 'FDQ_PORT (--port)', 'tcp://10.0.0.1:8000'));
    expect(error.suggestions[0]).toContain('enableServiceLinks');
  });

  it.each(['[1]', '1', 'null', '{', ''])('refuses %j as a JSON object', (text) => {
    expect(failure(() => convertValue(row('json'), '--x', text)).exitCode).toBe(2);
  });

  it('refuses a JSON file that is not there, naming it', () => {
    expect(failure(() => convertValue(row('json'), '--x', '@/no/such.json')).message).toContain(
      '@/no/such.json',
    );
  });

  it('answers any text with a value or a UserError', () => {
    const kinds = [
      'choice',
      'boolean',
      'integer',
      'number',
      'size',
      'length',
      'port',
      'json',
      'list',
    ] as const;
    fc.assert(
      fc.property(fc.constantFrom(...kinds), fc.string(), (kind, text) => {
        try {
          const value = convertValue(row(kind, { options: ['a'] }), '--x', text.replace(/^@/, ''));
          if (typeof value === 'number') expect(Number.isFinite(value)).toBe(true);
        } catch (error) {
          expect(error).toBeInstanceOf(UserError);
        }
      }),
      { numRuns: 500 },
    );
  });
});

describe('describeSetting', () => {
  it('names flag, variable or line', () => {
    expect(describeSetting('port', { kind: 'flag' })).toBe('--port');
    expect(describeSetting('port', { kind: 'environment', variable: 'FDQ_PORT' })).toBe('FDQ_PORT (--port)');
    expect(describeSetting('port', { kind: 'file', path: 'a.yaml', line: 3 })).toBe(
      'port (line 3 of a.yaml)',
    );
  });
});
