import { describe, expect, it } from 'vitest';
import { UnsupportedError } from '../../../src/errors.js';
import {
  formatPrecision,
  kvTypeOf,
  parsePrecision,
  precisionName,
  schemeNameOf,
} from '../../../src/quant/precision.js';
import type { Precision } from '../../../src/quant/precision.js';
import { SCHEMES } from '../../../src/quant/registry.js';
import { fc } from '../../helpers/properties.js';

/** Every pair of weight and activation that has a scheme. */
const PAIRS: readonly (readonly [string, string])[] = [
  ['W2A16', 'wint2'],
  ['W4A16', 'wint4'],
  ['W4A8', 'w4a8'],
  ['W4Afp8', 'w4afp8'],
  ['W8A16', 'wint8'],
  ['W8A8', 'w8a8'],
  ['W16A16', 'none'],
  ['Wfp4A16', 'nvfp4'],
  ['Wfp8Afp8', 'fp8_per_channel'],
  ['WNF4A16', 'wnf4'],
  ['WNF4A8', 'wnf4a8'],
];
const KV_PARTS = [
  ['', undefined],
  ['C4', 'int4'],
  ['C8', 'int8'],
  ['C16', 'bfloat16'],
  ['Cfp8', 'fp8'],
] as const;

function parse(text: string): Precision {
  const precision = parsePrecision(text);
  if (precision === undefined) throw new Error(`${text} is no precision name`);
  return precision;
}

function failureOf(text: string): UnsupportedError {
  try {
    parse(text);
  } catch (error) {
    if (error instanceof UnsupportedError) return error;
    throw error;
  }
  throw new Error(`${text} is accepted`);
}

describe('parsePrecision', () => {
  const names = PAIRS.flatMap(([pair, scheme]) =>
    KV_PARTS.map(([kv, type]) => [`${pair}${kv}`, scheme, type] as const),
  );

  it.each(names)('%s is %s with a KV cache of %s', (name, scheme, kv) => {
    const precision = parse(name);
    expect(schemeNameOf(precision)).toBe(scheme);
    expect(kvTypeOf(precision)).toBe(kv);
    expect(formatPrecision(precision)).toBe(name);
  });

  it('reads back what it writes, in any case', () => {
    fc.assert(
      fc.property(fc.constantFrom(...names), fc.infiniteStream(fc.boolean()), ([name], flips) => {
        const mixed = Array.from(name)
          .map((letter) => (flips.next().value === true ? letter.toUpperCase() : letter.toLowerCase()))
          .join('');
        expect(parse(mixed)).toEqual(parse(name));
        expect(parse(formatPrecision(parse(mixed)))).toEqual(parse(name));
      }),
    );
  });

  it.each([
    ['WInt4', 'W4A16'],
    ['wint8', 'W8A16'],
    ['WNF4', 'WNF4A16'],
    ['W8C8', 'W8A16C8'],
    ['Wint4Aint8Cint8', 'W4A8C8'],
    ['WBF16ABF16CBF16', 'W16A16C16'],
    [' w4AFP8c16 ', 'W4Afp8C16'],
  ])('%s is short for %s', (text, name) => {
    expect(formatPrecision(parse(text))).toBe(name);
  });

  it.each([
    ['W3A16', 'W3', 'Possible are: W2, W4, W8, W16, Wfp4, Wfp8, WNF4.'],
    ['Wint9', 'Wint9', 'W2, W4'],
    ['W4A4', 'A4', 'beside W4. Possible are: A8, A16, Afp8.'],
    ['W4Afp16C8', 'Afp16', 'A8, A16, Afp8'],
    ['Wfp8A16', 'A16', 'beside Wfp8. Possible are: Afp8.'],
    ['Wfp8', 'nothing after A', 'Possible are: Afp8.'],
    ['W16A8', 'A8', 'beside W16. Possible are: A16.'],
    ['W8AC8', 'nothing after A', 'A8, A16'],
    ['W8A8C', 'nothing after C', 'Possible are: C4, C8, C16, Cfp8.'],
    ['W8A8C32', 'C32', 'C4, C8, C16, Cfp8'],
    ['W8A8X', 'A8X', 'A8, A16'],
  ])('says which part of %s is wrong: %s', (text, part, possible) => {
    const { code, message, param } = failureOf(text);
    expect({ code, param }).toEqual({ code: 'unknown_scheme', param: 'quantization' });
    expect(message).toContain(`${JSON.stringify(text)} says ${part}`);
    expect(message).toContain(possible);
  });

  it.each(['', 'w', 'wnt8', 'weight_only_int8', 'block_wise_fp8', 'int8', 'A8W8', 'W4A16:g128', 'WA8'])(
    'leaves %j to others',
    (text) => {
      expect(parsePrecision(text)).toBeUndefined();
    },
  );

  it('never takes a text for something else', () => {
    fc.assert(
      fc.property(fc.string({ unit: fc.constantFrom(...Array.from('wacintfpbe4816 :_')) }), (text) => {
        let precision: Precision | undefined;
        try {
          precision = parsePrecision(text);
        } catch (error) {
          expect(error).toBeInstanceOf(UnsupportedError);
        }
        if (precision !== undefined) expect(parse(formatPrecision(precision))).toEqual(precision);
      }),
    );
  });
});

it.each(SCHEMES.map((scheme) => [scheme.name, scheme] as const))('%s has a precision name', (_, scheme) => {
  const precision = parse(precisionName(scheme));
  expect(formatPrecision(precision)).toBe(precisionName(scheme));
});
