import type { ConfigReader } from './config-reader.js';

interface RopeBase {
  readonly theta: number;
  /** First entries of each head that are rotated; even. */
  readonly rotaryDim: number;
}

/** Rotary position embedding and how its frequencies are scaled; names as in transformers. */
export type RopeConfig =
  | (RopeBase & { readonly type: 'default' })
  | (RopeBase & { readonly type: 'linear'; readonly factor: number })
  /** Past `originalPositions` the base grows with the length. */
  | (RopeBase & { readonly type: 'dynamic'; readonly factor: number; readonly originalPositions: number })
  | (RopeBase & {
      readonly type: 'llama3';
      readonly factor: number;
      readonly lowFrequencyFactor: number;
      readonly highFrequencyFactor: number;
      readonly originalPositions: number;
    })
  | (RopeBase & {
      readonly type: 'yarn';
      readonly factor: number;
      readonly betaFast: number;
      readonly betaSlow: number;
      readonly truncate: boolean;
      readonly originalPositions: number;
      /** Multiplies cos and sin. */
      readonly attentionFactor: number;
    });

const DEFAULT_THETA = 10_000;
const SUPPORTED_TYPES = 'default, linear, dynamic, llama3 or yarn';

/**
 * Reads `rope_scaling` with `rope_theta` (older configs; the type is under `rope_type` or `type`) or
 * `rope_parameters` (transformers 5, where all of it lies together). As in transformers, a non-empty
 * `rope_scaling` wins.
 */
export function parseRope(config: ConfigReader, headDim: number, maxPositions: number): RopeConfig {
  const key = config.object('rope_scaling').keys().length > 0 ? 'rope_scaling' : 'rope_parameters';
  const rope = config.object(key);
  refuseUnknownForms(rope);
  const owner = rope.has('rope_theta') ? rope : config;
  const base = {
    theta: owner.positive('rope_theta', DEFAULT_THETA),
    rotaryDim: parseRotaryDim(rope.has('partial_rotary_factor') ? rope : config, headDim),
  };
  const typeKey = rope.has('rope_type') ? 'rope_type' : 'type';
  const type = rope.text(typeKey, 'default');
  switch (type) {
    case 'default':
      return { ...base, type };
    case 'linear':
      return { ...base, type, factor: rope.positive('factor') };
    case 'dynamic':
      if (base.rotaryDim < 4) throw rope.unsupported(typeKey, 'default for heads of fewer than 4 rotated entries');
      return { ...base, type, factor: rope.positive('factor'), originalPositions: maxPositions };
    case 'llama3':
      return { ...base, type, ...parseLlama3(config, rope, maxPositions) };
    case 'yarn':
      if (base.theta <= 1) throw owner.invalid('rope_theta', 'more than 1');
      return { ...base, type, ...parseYarn(config, rope, maxPositions) };
    default:
      throw rope.unsupported(typeKey, SUPPORTED_TYPES);
  }
}

/** Longest sequence by the conventions of the scaling types: `max_position_embeddings` is the length before scaling. */
export function scaledMaxPositions(rope: RopeConfig, maxPositions: number): number {
  switch (rope.type) {
    case 'linear':
    case 'dynamic':
      return Math.max(maxPositions, Math.floor(maxPositions * rope.factor));
    case 'yarn':
      return Math.max(maxPositions, Math.floor(rope.originalPositions * rope.factor));
    default:
      return maxPositions;
  }
}

function refuseUnknownForms(rope: ConfigReader): void {
  for (const key of ['mrope_section', 'mrope_interleaved', 'full_attention', 'sliding_attention']) {
    if (rope.has(key)) throw rope.unsupported(key, 'absent');
  }
}

function parseRotaryDim(owner: ConfigReader, headDim: number): number {
  const factor = owner.positive('partial_rotary_factor', 1);
  const rotaryDim = Math.trunc(headDim * factor);
  if (rotaryDim > headDim) throw owner.invalid('partial_rotary_factor', 'at most 1');
  if (rotaryDim < 2 || rotaryDim % 2 !== 0) {
    throw owner.invalid('partial_rotary_factor', `a factor that rotates an even number of the ${headDim} entries of a head`);
  }
  return rotaryDim;
}

function parseLlama3(config: ConfigReader, rope: ConfigReader, maxPositions: number) {
  const lowFrequencyFactor = rope.positive('low_freq_factor');
  const highFrequencyFactor = rope.positive('high_freq_factor');
  if (highFrequencyFactor <= lowFrequencyFactor) {
    throw rope.invalid('high_freq_factor', `more than low_freq_factor, ${lowFrequencyFactor}`);
  }
  const originalPositions = parseOriginalPositions(config, rope, maxPositions);
  return { factor: rope.positive('factor'), lowFrequencyFactor, highFrequencyFactor, originalPositions };
}

/** YaRN, https://arxiv.org/abs/2309.00071. */
function parseYarn(config: ConfigReader, rope: ConfigReader, maxPositions: number) {
  const originalPositions = parseOriginalPositions(config, rope, maxPositions);
  const derived = rope.keys().includes('factor') ? maxPositions / originalPositions : undefined;
  const factor = rope.positive('factor', derived);
  return {
    factor,
    betaFast: readOrDefault(rope, 'beta_fast', 32),
    betaSlow: readOrDefault(rope, 'beta_slow', 1),
    truncate: rope.boolean('truncate', true),
    originalPositions,
    attentionFactor: rope.positive('attention_factor', yarnAttentionFactor(rope, factor)),
  };
}

function yarnAttentionFactor(rope: ConfigReader, factor: number): number {
  const scale = (multiplier: number): number => (factor <= 1 ? 1 : 0.1 * multiplier * Math.log(factor) + 1);
  const mscale = readOrDefault(rope, 'mscale', 0);
  const mscaleAllDim = readOrDefault(rope, 'mscale_all_dim', 0);
  return mscale !== 0 && mscaleAllDim !== 0 ? scale(mscale) / scale(mscaleAllDim) : scale(1);
}

/** transformers reads 0 as absent for these keys. */
function readOrDefault(rope: ConfigReader, key: string, fallback: number): number {
  return !rope.has(key) || rope.get(key) === 0 ? fallback : rope.positive(key);
}

function parseOriginalPositions(config: ConfigReader, rope: ConfigReader, maxPositions: number): number {
  const key = 'original_max_position_embeddings';
  return (config.has(key) ? config : rope).size(key, maxPositions);
}
