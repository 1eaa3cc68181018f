import { describe, expect, it } from 'vitest';
import { decodeNf4, encodeNf4 } from '../../../../src/quant/numerics/nf4.js';

const VALUES = Array.from({ length: 16 }, (_, code) => decodeNf4(code));

/** Inverse of the normal distribution's cumulative function, by bisection of an integral. */
function normalQuantile(p: number): number {
  let low = -8;
  let high = 8;
  for (let step = 0; step < 60; step++) {
    const middle = (low + high) / 2;
    if (normalCdf(middle) < p) low = middle;
    else high = middle;
  }
  return (low + high) / 2;
}

/** Simpson's rule from 0. */
function normalCdf(x: number): number {
  const steps = 400;
  const density = (t: number): number => Math.exp((-t * t) / 2) / Math.sqrt(2 * Math.PI);
  const h = x / steps;
  let sum = density(0) + density(x);
  for (let i = 1; i < steps; i++) sum += density(i * h) * (i % 2 === 0 ? 2 : 4);
  return 0.5 + (sum * h) / 3;
}

describe('nf4', () => {
  it('has the values QLoRA derives from quantiles of the normal distribution', () => {
    // Appendix E: 8 positive and 7 negative quantiles between 0.5 and this offset, and 0.
    const offset = (1 - 1 / 30 + 1 - 1 / 32) / 2;
    const quantiles = (count: number): number[] =>
      Array.from({ length: count - 1 }, (_, i) =>
        normalQuantile(offset + ((0.5 - offset) * i) / (count - 1)),
      );
    const positive = quantiles(9);
    const negative = quantiles(8).map((value) => -value);
    const largest = normalQuantile(offset);
    const derived = [...negative, 0, ...positive].map((value) => value / largest).sort((a, b) => a - b);
    expect(derived).toHaveLength(16);
    for (const [code, value] of VALUES.entries()) expect(value).toBeCloseTo(derived[code] as number, 6);
  });

  it('restores every code, and zero of either sign', () => {
    for (const [code, value] of VALUES.entries()) expect(encodeNf4(value)).toBe(code);
    expect([0, -0].map(encodeNf4)).toEqual([7, 7]);
  });

  it('gives a midpoint to the lower value and the next float32 to the higher one', () => {
    for (let code = 0; code < 15; code++) {
      const midpoint = Math.fround(((VALUES[code] as number) + (VALUES[code + 1] as number)) / 2);
      expect(encodeNf4(midpoint)).toBe(code);
      expect(encodeNf4(midpoint + Math.abs(midpoint) * 2 ** -22)).toBe(code + 1);
    }
  });
});
