import { decodeE4m3, encodeE4m3, E4M3_MAX } from './numerics/fp8.js';
import { roundHalfToEven } from './numerics/rounding.js';
import { signExtend } from './numerics/packing.js';
import { dequantizeTiles, quantizeTiles, scaleToMaximum } from './numerics/tiles.js';
import type { Rows, TileCodes, TileRule } from './numerics/tiles.js';
import type { QuantKey } from './scheme.js';

/**
 * What happens to x before the product: ActivationRule of custom-ops/include/fdq/formats.h. The static rules have
 * the scale of a checkpoint.
 */
export type ActivationRule =
  'none' | 'e4m3_group128' | 'e4m3_token' | 'int8_token' | 'e4m3_static' | 'int8_static';

const GROUP = 128;
const INT8_MAX = 127;

/** 3 mantissa bits: half a step is 2^-4 of a normal number; subnormals are 2^-9 apart. */
export const E4M3_ERROR = { relative: 2 ** -4, ofScale: 2 ** -10 } as const;

const E4M3_TOKEN: QuantKey = Object.freeze<QuantKey>({
  element: 'float8e4m3fn',
  scaleType: 'float32',
  group: [1, -1],
  dynamic: true,
  symmetric: true,
  maxError: E4M3_ERROR,
});

const INT8_TOKEN: QuantKey = Object.freeze<QuantKey>({
  ...E4M3_TOKEN,
  element: 'int8',
  maxError: { relative: 0, ofScale: 0.5 },
});

/** The format each rule rounds x to; a static scale is one for every token. */
export const ACTIVATIONS: Readonly<Record<Exclude<ActivationRule, 'none'>, QuantKey>> = Object.freeze({
  e4m3_group128: Object.freeze<QuantKey>({ ...E4M3_TOKEN, group: [1, GROUP] }),
  e4m3_token: E4M3_TOKEN,
  int8_token: INT8_TOKEN,
  e4m3_static: Object.freeze<QuantKey>({ ...E4M3_TOKEN, group: [-1, -1], dynamic: false }),
  int8_static: Object.freeze<QuantKey>({ ...INT8_TOKEN, group: [-1, -1], dynamic: false }),
});

/** The rule of a scheme's `activation`. */
export function activationRuleOf(key: QuantKey | null): ActivationRule {
  if (key === null) return 'none';
  const element = key.element === 'int8' ? 'int8' : 'e4m3';
  if (!key.dynamic) return `${element}_static`;
  return key.group[1] === GROUP ? 'e4m3_group128' : `${element}_token`;
}

/**
 * What a layer does to its input [tokens, k]: codes with a scale for each token (or each group of 128 columns of
 * it), amax / 448 or amax / 127 and 1 where that is 0; a static scale is given, and what lies beyond the range of
 * the codes saturates. This is the reference of the kernels.
 * @throws UserError `non_finite_weight` for NaN and infinities.
 */
export function quantizeActivation(
  key: QuantKey,
  x: Omit<Rows, 'firstRow'>,
  staticScale?: number,
): TileCodes {
  const rule = tileRule(key);
  const findScale = staticScale === undefined ? rule.findScale : (): number => staticScale;
  return quantizeTiles({ ...x, firstRow: 0 }, { ...rule, findScale });
}

/** The float32 values [tokens, k] that codes and scales stand for. */
export function dequantizeActivation(key: QuantKey, codes: TileCodes, k: number): Float32Array {
  const decode = key.element === 'int8' ? (code: number): number => signExtend(code, 8) : decodeE4m3;
  return dequantizeTiles(codes, k, tileRule(key), decode);
}

function tileRule({ element, group }: QuantKey): TileRule {
  const [rows, columns] = group.map((size) => Math.max(size, 0)) as [number, number];
  return element === 'int8'
    ? { rows, columns, findScale: scaleToMaximum(INT8_MAX), encode: encodeInt8 }
    : { rows, columns, findScale: scaleToMaximum(E4M3_MAX), encode: encodeE4m3 };
}

function encodeInt8(quotient: number): number {
  return Math.max(-INT8_MAX, Math.min(INT8_MAX, roundHalfToEven(quotient)));
}
