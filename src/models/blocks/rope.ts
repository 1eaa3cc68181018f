import { floatAttribute, intAttribute } from '../../graph/builder.js';
import type { RopeConfig } from '../rope-config.js';
import { FDQ_DOMAIN, type BlockContext } from './context.js';

/*
 * transformers computes frequencies in float32, and at large positions the last bits of a frequency show in the
 * logits. So every operation here is rounded to float32, in transformers' order.
 */
const f32 = Math.fround;

/** PyTorch divides a scalar by a tensor as scalar times reciprocal. */
function divideScalar(scalar: number, by: number): number {
  return f32(f32(1 / by) * f32(scalar));
}

/** theta^(2i/d) for i in [0, d/2). */
function wavelengths({ theta, rotaryDim }: RopeConfig): readonly number[] {
  return Array.from({ length: rotaryDim / 2 }, (_, pair) => f32(f32(theta) ** f32((2 * pair) / rotaryDim)));
}

/** Radians per position of each rotated pair, [rotaryDim / 2]. */
export function inverseFrequencies(rope: RopeConfig): Float32Array {
  const periods = wavelengths(rope);
  const unscaled = periods.map((period) => f32(1 / period));
  switch (rope.type) {
    case 'default':
    case 'dynamic':
      return Float32Array.from(unscaled);
    case 'linear':
      return Float32Array.from(unscaled, (frequency) => frequency / f32(rope.factor));
    case 'llama3':
      return Float32Array.from(unscaled, (frequency) => scaleLlama3(frequency, rope));
    case 'yarn':
      return scaleYarn(periods, rope);
  }
}

/** Long wavelengths are stretched, short ones kept, those between blended. */
function scaleLlama3(frequency: number, rope: RopeConfig & { readonly type: 'llama3' }): number {
  const { factor, lowFrequencyFactor: low, highFrequencyFactor: high, originalPositions } = rope;
  const wavelength = divideScalar(2 * Math.PI, frequency);
  const isLong = wavelength > f32(originalPositions / low);
  if (isLong) return f32(frequency / f32(factor));
  if (wavelength < f32(originalPositions / high)) return frequency;
  const smooth = f32(f32(divideScalar(originalPositions, wavelength) - f32(low)) / f32(high - low));
  const stretched = f32(f32(f32(1 - smooth) * frequency) / f32(factor));
  return f32(stretched + f32(smooth * frequency));
}

/** YaRN, https://arxiv.org/abs/2309.00071: a linear ramp over the pairs blends stretched and kept frequencies. */
function scaleYarn(periods: readonly number[], rope: RopeConfig & { readonly type: 'yarn' }): Float32Array {
  const { factor, truncate, rotaryDim } = rope;
  const lowPair = correctionDim(rope.betaFast, rope);
  const highPair = correctionDim(rope.betaSlow, rope);
  const low = Math.max(truncate ? Math.floor(lowPair) : lowPair, 0);
  const bound = Math.min(truncate ? Math.ceil(highPair) : highPair, rotaryDim - 1);
  const high = bound === low ? bound + 0.001 : bound;
  return Float32Array.from(periods, (period, pair) => {
    const ramp = Math.min(Math.max(f32(f32(pair - f32(low)) / f32(high - low)), 0), 1);
    const kept = f32(1 - ramp);
    const interpolated = f32(1 / f32(f32(factor) * period));
    return f32(f32(interpolated * f32(1 - kept)) + f32(f32(1 / period) * kept));
  });
}

/** Index of the dimension that turns `rotations` times within the original context. */
function correctionDim(rotations: number, { rotaryDim, theta, originalPositions }: RopeConfig & { readonly type: 'yarn' }): number {
  return (rotaryDim * Math.log(originalPositions / (rotations * 2 * Math.PI))) / (2 * Math.log(theta));
}

/** Cosines, then sines of every token's pairs, [tokens, rotaryDim]: computed once for all layers. */
export function addRotaryTable(context: BlockContext, positions: string): string {
  const { rope } = context.config;
  const graph = context.graph.scope('model/rotary_emb');
  const frequencies = inverseFrequencies(rope);
  const isDynamic = rope.type === 'dynamic';
  return graph.value({
    opType: 'RotaryTable',
    domain: FDQ_DOMAIN,
    inputs: [positions, graph.constant('inverse_frequencies', 'float32', [frequencies.length], frequencies)],
    output: { dataType: 'float32', shape: ['tokens', rope.rotaryDim] },
    attributes: {
      attention_factor: floatAttribute(rope.type === 'yarn' ? rope.attentionFactor : 1),
      ntk_base: floatAttribute(isDynamic ? rope.theta : 0),
      ntk_factor: floatAttribute(isDynamic ? rope.factor : 0),
      ntk_original: intAttribute(isDynamic ? rope.originalPositions : 0),
    },
  });
}
