import { describe, expect, it } from 'vitest';
import {
  activationRuleOf,
  ACTIVATIONS,
  dequantizeActivation,
  quantizeActivation,
} from '../../../src/quant/activation.js';
import { SCHEMES } from '../../../src/quant/registry.js';

const x = { name: 'x', rows: 2, k: 3, values: Float32Array.of(1, -127, 50, 0, 0, 0) };

describe('activations', () => {
  it('have one rule for each format, found again from the format', () => {
    for (const [rule, key] of Object.entries(ACTIVATIONS)) expect(activationRuleOf(key)).toBe(rule);
    expect(activationRuleOf(null)).toBe('none');
  });

  it('are what the schemes say', () => {
    const rules = SCHEMES.filter(({ name }) => !name.includes(':')).map(
      ({ name, activation }) => [name, activationRuleOf(activation)] as const,
    );
    expect(Object.fromEntries(rules.filter(([, rule]) => rule !== 'none'))).toEqual({
      block_wise_fp8: 'e4m3_group128',
      fp8_per_channel: 'e4m3_token',
      fp8_per_tensor: 'e4m3_token',
      w8a8: 'int8_token',
      w4a8: 'int8_token',
      w4afp8: 'e4m3_token',
      wnf4a8: 'int8_token',
    });
  });

  it('get a scale for each token, 1 where it is all zeros', () => {
    const codes = quantizeActivation(ACTIVATIONS.int8_token, x);
    expect([...codes.scales]).toEqual([1, 1]);
    expect([...new Int8Array(codes.codes.buffer)]).toEqual([1, -127, 50, 0, 0, 0]);
    expect(dequantizeActivation(ACTIVATIONS.int8_token, codes, 3)).toEqual(x.values);
  });

  it('saturate beyond the range of a stored scale', () => {
    const int8 = quantizeActivation(ACTIVATIONS.int8_static, x, 0.5);
    expect([...int8.scales]).toEqual([0.5]);
    expect([...dequantizeActivation(ACTIVATIONS.int8_static, int8, 3)]).toEqual([1, -63.5, 50, 0, 0, 0]);
    const e4m3 = quantizeActivation(ACTIVATIONS.e4m3_static, x, 0.25);
    expect([...dequantizeActivation(ACTIVATIONS.e4m3_static, e4m3, 3)]).toEqual([1, -112, 48, 0, 0, 0]);
  });
});
