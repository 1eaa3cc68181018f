import { describe, expect, it } from 'vitest';
import { decodeE2m1, encodeE2m1, E2M1_MAX } from '../../../../src/quant/numerics/fp4.js';
import { bitsOf, goldenFloats, goldenTensor, readGolden } from '../golden-vectors.js';

const golden = readGolden('e2m1');

describe('e2m1', () => {
  it('decodes all 16 codes', () => {
    const decoded = Float32Array.from({ length: 16 }, (_, code) => decodeE2m1(code));
    expect(bitsOf(decoded)).toEqual(bitsOf(goldenFloats(golden, 'decode')));
    expect(Math.max(...decoded)).toBe(E2M1_MAX);
  });

  it('encodes values, midpoints, their neighbours and infinities', () => {
    const codes = goldenTensor(golden, 'x_code').bytes;
    const wrong = [...goldenFloats(golden, 'x')].flatMap((value, at) =>
      Number.isNaN(value) || encodeE2m1(value) === codes[at] ? [] : [{ value, code: codes[at] }],
    );
    expect(wrong).toEqual([]);
  });

  it('restores every code', () => {
    for (let code = 0; code < 16; code++) expect(encodeE2m1(decodeE2m1(code))).toBe(code);
  });

  it('has no NaN', () => {
    expect(encodeE2m1(NaN)).toBe(0);
  });
});
