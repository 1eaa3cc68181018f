import { readFileSync } from 'node:fs';
import path from 'node:path';

import { describe, expect, it } from 'vitest';

import { inverseFrequencies } from '../../../src/models/blocks/rope.js';
import { ConfigReader } from '../../../src/models/config-reader.js';
import { parseRope, scaledMaxPositions } from '../../../src/models/rope-config.js';

interface ExpectedCase {
  readonly headDim: number;
  readonly maxPositions: number;
  readonly rope: Readonly<Record<string, unknown>>;
  readonly frequencies: readonly number[];
  readonly attentionFactor: number;
}

/** Two roundings of float32: powers may differ in the last bit from one library to the next. */
const RELATIVE_TOLERANCE = 2.5e-7;

const { cases } = JSON.parse(readFileSync(path.join(import.meta.dirname, 'rope-expected.json'), 'utf8')) as {
  readonly cases: readonly ExpectedCase[];
};

function parse(config: Readonly<Record<string, unknown>>, headDim = 8, maxPositions = 128) {
  return parseRope(new ConfigReader(config), headDim, maxPositions);
}

describe('inverseFrequencies', () => {
  for (const { headDim, maxPositions, rope, frequencies, attentionFactor } of cases) {
    it(`agrees with transformers for ${JSON.stringify(rope)}`, () => {
      const parsed = parse({ rope_parameters: rope }, headDim, maxPositions);
      const found = inverseFrequencies(parsed);
      expect(found).toHaveLength(frequencies.length);
      frequencies.forEach((expected, pair) => {
        expect(Math.abs((found[pair] ?? NaN) / expected - 1), `pair ${pair}`).toBeLessThanOrEqual(RELATIVE_TOLERANCE);
      });
      expect(parsed.type === 'yarn' ? parsed.attentionFactor : 1).toBeCloseTo(attentionFactor, 12);
    });
  }

  it('is theta^(-2i/d) by default, over the rotated part of a head', () => {
    const expected = [0, 1, 2].map((pair) => Math.fround(500 ** (-pair / 3)));
    const found = inverseFrequencies(parse({ rope_theta: 500, partial_rotary_factor: 0.75 }));
    expect(found).toHaveLength(3);
    expected.forEach((value, pair) => expect(found[pair]).toBeCloseTo(value, 7));
  });
});

describe('parseRope', () => {
  it('reads the older spelling', () => {
    const expected = { type: 'linear', factor: 2, theta: 5e5, rotaryDim: 8 };
    expect(parse({ rope_theta: 5e5, rope_scaling: { type: 'linear', factor: 2 } })).toEqual(expected);
    expect(parse({ rope_theta: 5e5, rope_scaling: { rope_type: 'linear', type: 'yarn', factor: 2 } })).toEqual(expected);
  });

  it('reads the spelling of transformers 5, where a theta within wins', () => {
    const rope_parameters = { rope_type: 'linear', factor: 2, rope_theta: 7 };
    expect(parse({ rope_theta: 5e5, rope_parameters })).toMatchObject({ type: 'linear', theta: 7 });
    expect(parse({ rope_scaling: { factor: 3, type: 'linear' }, rope_parameters })).toMatchObject({ factor: 3, theta: 10_000 });
    expect(parse({ rope_scaling: {}, rope_parameters })).toMatchObject({ factor: 2 });
  });

  it('assumes unscaled positions and theta 10000', () => {
    const expected = { type: 'default', theta: 10_000, rotaryDim: 8 };
    expect(parse({})).toEqual(expected);
    expect(parse({ rope_scaling: null, rope_parameters: { rope_theta: null } })).toEqual(expected);
  });

  it('takes the original length from the top level first, then from the scaling, then the maximum', () => {
    const yarn = { rope_type: 'yarn', factor: 2 };
    const key = 'original_max_position_embeddings';
    expect(parse({ [key]: 16, rope_scaling: { ...yarn, [key]: 32 } })).toMatchObject({ originalPositions: 16 });
    expect(parse({ rope_scaling: { ...yarn, [key]: 32 } })).toMatchObject({ originalPositions: 32 });
    expect(parse({ rope_scaling: yarn })).toMatchObject({ originalPositions: 128 });
  });

  it('reads 0 as absent where transformers does', () => {
    const zeros = { beta_fast: 0, beta_slow: 0, mscale: 0, mscale_all_dim: 1 };
    const parsed = parse({ rope_scaling: { rope_type: 'yarn', factor: 2, ...zeros } });
    expect(parsed).toMatchObject({ betaFast: 32, betaSlow: 1, attentionFactor: 0.1 * Math.log(2) + 1 });
  });

  it('scales the longest sequence by the convention of each type', () => {
    const longest = (rope: object): number => scaledMaxPositions(parse({ rope_scaling: rope }), 128);
    expect(longest({ type: 'default' })).toBe(128);
    expect(longest({ type: 'linear', factor: 4 })).toBe(512);
    expect(longest({ type: 'dynamic', factor: 2.5 })).toBe(320);
    expect(longest({ type: 'yarn', factor: 4, original_max_position_embeddings: 16 })).toBe(128);
    expect(longest({ type: 'yarn', factor: 4, original_max_position_embeddings: 64 })).toBe(256);
    expect(longest({ type: 'linear', factor: 0.5 })).toBe(128);
  });

  const llama3 = { rope_type: 'llama3', factor: 8, low_freq_factor: 1, high_freq_factor: 4 };
  const refused: Record<string, [object, RegExp]> = {
    longrope: [{ rope_scaling: { type: 'longrope', factor: 2 } }, /rope_scaling\.type .* received "longrope"/],
    'an unknown type': [{ rope_parameters: { rope_type: 'mrope' } }, /rope_parameters\.rope_type .* received "mrope"/],
    'sections of a multimodal model': [{ rope_scaling: { type: 'default', mrope_section: [1] } }, /mrope_section/],
    'one setting per layer type': [{ rope_parameters: { full_attention: {} } }, /full_attention/],
    'a missing factor': [{ rope_scaling: { type: 'linear' } }, /factor .* received nothing/],
    'a yarn without its factor': [{ rope_scaling: { type: 'yarn' } }, /factor .* received nothing/],
    'a negative factor': [{ rope_scaling: { type: 'yarn', factor: -1 } }, /factor .* received -1/],
    'a negative beta': [{ rope_scaling: { type: 'yarn', factor: 2, beta_fast: -1 } }, /beta_fast .* received -1/],
    'a theta of zero': [{ rope_theta: 0 }, /rope_theta .* received 0/],
    'a yarn whose theta has no logarithm': [{ rope_theta: 1, rope_scaling: { type: 'yarn', factor: 2 } }, /rope_theta/],
    'bands the wrong way round': [{ rope_scaling: { ...llama3, high_freq_factor: 1 } }, /high_freq_factor .* received 1/],
    'an odd number of rotated entries': [{ partial_rotary_factor: 0.4 }, /partial_rotary_factor .* received 0.4/],
    'no rotated entry': [{ partial_rotary_factor: 0.1 }, /partial_rotary_factor/],
    'more rotated entries than there are': [{ partial_rotary_factor: 2 }, /at most 1 but received 2/],
    'scaling that is not an object': [{ rope_scaling: 'linear' }, /rope_scaling .* received "linear"/],
  };
  for (const [name, [config, message]] of Object.entries(refused)) {
    it(`refuses ${name}`, () => {
      expect(() => parse(config as Record<string, unknown>)).toThrow(message);
    });
  }

  it('refuses dynamic scaling of a single pair, whose exponent would be infinite', () => {
    expect(() => parse({ rope_scaling: { type: 'dynamic', factor: 2 } }, 2)).toThrow(/rope_scaling\.type/);
  });
});
