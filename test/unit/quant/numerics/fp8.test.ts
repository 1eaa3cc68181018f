import { describe, expect, it } from 'vitest';
import { decodeBf16 } from '../../../../src/quant/numerics/bf16.js';
import { decodeE4m3, encodeE4m3, E4M3_MAX } from '../../../../src/quant/numerics/fp8.js';
import { bitsOf, goldenFloats, goldenTensor, readGolden } from '../golden-vectors.js';

const golden = readGolden('e4m3');
const NAN_CODES = [0x7f, 0xff];

describe('e4m3fn', () => {
  it('decodes all 256 codes', () => {
    const decoded = Float32Array.from({ length: 256 }, (_, code) => decodeE4m3(code));
    const expected = goldenFloats(golden, 'decode');
    for (const code of NAN_CODES) expect(decoded[code]).toBeNaN();
    const finite = (values: Float32Array): Uint32Array =>
      bitsOf(values.filter((_, code) => !NAN_CODES.includes(code)));
    expect(finite(decoded)).toEqual(finite(expected));
  });

  it('encodes all 65536 bfloat16 values', () => {
    const expected = goldenTensor(golden, 'bf16_to_code').bytes;
    const wrong = [...expected].flatMap((code, bits) => {
      const found = encodeE4m3(decodeBf16(bits));
      const isNan = NAN_CODES.includes(code);
      return found === code || (isNan && NAN_CODES.includes(found)) ? [] : [{ bits, code, found }];
    });
    expect(wrong).toEqual([]);
  });

  it('encodes values, midpoints and their neighbours', () => {
    const x = goldenFloats(golden, 'x');
    const codes = goldenTensor(golden, 'x_code').bytes;
    for (const [index, value] of x.entries()) {
      const found = encodeE4m3(value);
      if (Number.isNaN(value)) expect(NAN_CODES).toContain(found);
      else expect({ value, code: found }).toEqual({ value, code: codes[index] });
    }
  });

  it('restores every finite code', () => {
    for (let code = 0; code < 256; code++) {
      if (!NAN_CODES.includes(code)) expect(encodeE4m3(decodeE4m3(code))).toBe(code);
    }
  });

  it('saturates and keeps the sign of zero', () => {
    expect([Infinity, 449, E4M3_MAX].map(encodeE4m3)).toEqual([0x7e, 0x7e, 0x7e]);
    expect([-Infinity, -1e9].map(encodeE4m3)).toEqual([0xfe, 0xfe]);
    expect([0, -0].map(encodeE4m3)).toEqual([0, 0x80]);
    expect(NAN_CODES).toContain(encodeE4m3(NaN));
  });
});
