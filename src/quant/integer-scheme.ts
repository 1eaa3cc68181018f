import { roundHalfToEven } from './numerics/rounding.js';
import { createTileScheme } from './tile-scheme.js';
import type { TileScheme } from './tile-scheme.js';
import type { QuantScheme, SchemeFamily } from './scheme.js';

/** Columns a scale may span besides the whole row. */
const GROUP_SIZES = [32, 64, 128] as const;

export interface IntegerScheme extends Pick<TileScheme, 'name' | 'aliases' | 'packing'> {
  readonly format: 'int8' | 'int4';
  /** Largest code; the smallest is its negative. */
  readonly maxCode: number;
}

/**
 * Weight-only symmetric integers: scale = amax / maxCode, code = round(w / scale) with ties to even. One scale
 * a row under the bare name, one for every G columns of a row under `<name>:gG`.
 */
export function createIntegerFamily(spec: IntegerScheme): SchemeFamily {
  const grouped = GROUP_SIZES.map((size) => createVariant(spec, size));
  return Object.freeze({ name: spec.name, variants: [createVariant(spec, 0), ...grouped] as const });
}

function createVariant(spec: IntegerScheme, groupK: number): QuantScheme {
  const { name, format, maxCode, packing } = spec;
  const suffix = groupK === 0 ? '' : `:g${groupK}`;
  return createTileScheme({
    name: `${name}${suffix}`,
    aliases: spec.aliases.map((alias) => `${alias}${suffix}`),
    summary: `${format} weights, one scale ${groupK === 0 ? 'an output channel' : `for ${groupK} inputs`}`,
    activation: null,
    activationRule: 'none',
    native: { format, groupN: 1, groupK },
    weight: { element: format, maxError: { relative: 0, ofScale: 0.5 } },
    maxCode,
    encode: (quotient) => Math.max(-maxCode, Math.min(maxCode, roundHalfToEven(quotient))),
    decode: (code) => (code << 24) >> 24,
    ...(packing === undefined ? {} : { packing }),
  });
}
