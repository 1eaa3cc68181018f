import { describe, expect, it } from 'vitest';
import { decodeBf16, encodeBf16 } from '../../../../src/quant/numerics/bf16.js';
import { floatBytes, isFloatType, widenFloats } from '../../../../src/quant/numerics/floats.js';
import { decodeFp16, encodeFp16 } from '../../../../src/quant/numerics/fp16.js';

const CODES = 2 ** 16;
const SIGN = 0x8000;

interface Format {
  readonly name: string;
  readonly decode: (code: number) => number;
  readonly encode: (x: number) => number;
  readonly infinity: number;
  readonly one: number;
}

const FORMATS: readonly Format[] = [
  { name: 'bfloat16', decode: decodeBf16, encode: encodeBf16, infinity: 0x7f80, one: 0x3f80 },
  { name: 'float16', decode: decodeFp16, encode: encodeFp16, infinity: 0x7c00, one: 0x3c00 },
];

describe.each(FORMATS)('$name', ({ decode, encode, infinity, one }) => {
  it('knows 1, 0 and the infinities', () => {
    expect([one, infinity, infinity | SIGN].map(decode)).toEqual([1, Infinity, -Infinity]);
    expect([1, Infinity, -Infinity, 0, -0].map(encode)).toEqual([one, infinity, infinity | SIGN, 0, SIGN]);
    expect(decode(SIGN)).toBe(-0);
  });

  it('restores every code, NaN as some NaN', () => {
    for (let code = 0; code < CODES; code++) {
      const found = encode(decode(code));
      if ((code & ~SIGN) > infinity) expect(decode(found)).toBeNaN();
      else if (found !== code) expect({ code, found }).toEqual({ code, found: code });
    }
  });

  it('rises with the code', () => {
    for (let code = 1; code <= infinity; code++) {
      if (!(decode(code) > decode(code - 1))) expect.fail(`code ${code} is not above its predecessor`);
    }
  });

  it('rounds every midpoint to the even code and its neighbours to the nearer one', () => {
    for (let code = 0; code + 1 < infinity; code++) {
      const [low, high] = [decode(code), decode(code + 1)];
      const middle = (low + high) / 2;
      const [below, above] = [middle - (high - low) / 64, middle + (high - low) / 64];
      const expected = [code, code + (code & 1), code + 1];
      const found = [below, middle, above].map((x) => encode(x));
      if (found.join() !== expected.join()) expect(found).toEqual(expected);
      const negative = [-below, -middle, -above].map((x) => encode(x) ^ SIGN);
      if (negative.join() !== expected.join()) expect(negative).toEqual(expected);
    }
  });

  it('overflows from the midpoint past the largest value', () => {
    const largest = decode(infinity - 1);
    const halfStep = (largest - decode(infinity - 2)) / 2;
    expect(encode(largest + halfStep)).toBe(infinity);
    expect(encode(-largest - halfStep)).toBe(infinity | SIGN);
    expect(encode(largest + halfStep / 2)).toBe(infinity - 1);
  });
});

describe('widenFloats', () => {
  it('reads each type at any alignment', () => {
    const values = [1.5, -0.25, 3, -0];
    const padded = new Uint8Array(1 + 4 * values.length);
    const view = new DataView(padded.buffer);
    for (const [index, value] of values.entries()) view.setFloat32(1 + 4 * index, value, true);
    expect([...widenFloats(padded.subarray(1), 'float32')]).toEqual(values);
    for (const { name, encode } of FORMATS) {
      for (const [index, value] of values.entries()) view.setUint16(1 + 2 * index, encode(value), true);
      expect([...widenFloats(padded.subarray(1, 9), name as 'float16' | 'bfloat16')]).toEqual(values);
    }
  });

  it('knows the sizes and what is no float', () => {
    expect((['float32', 'float16', 'bfloat16'] as const).map(floatBytes)).toEqual([4, 2, 2]);
    expect(['bfloat16', 'int8', 'float64'].map(isFloatType)).toEqual([true, false, false]);
  });
});
