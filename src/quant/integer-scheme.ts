import { divideFloat32, roundHalfToEven } from './numerics/rounding.js';
import { signExtend } from './numerics/packing.js';
import { extremeOf, searchScale } from './numerics/scale-search.js';
import { scaleToMaximum } from './numerics/tiles.js';
import { createTileScheme } from './tile-scheme.js';
import type { QuantKey, QuantScheme, SchemeFamily } from './scheme.js';

/** Columns a scale may span besides the whole row. */
const GROUP_SIZES = [32, 64, 128] as const;

/** Largest code of each format; the smallest is its negative, or one less where scales are searched. */
const MAX_CODES = { int8: 127, int4: 7 } as const;
const BITS = { int8: 8, int4: 4 } as const;

/** Scales tried by `:mse`, from that of the largest magnitude down to 33/64 of it. */
const SEARCH_CANDIDATES = 32;
/** amax / |scale| at the last of them, less the largest code. */
const SEARCH_ERROR = (MAX_CODES.int4 * 64) / 33 - MAX_CODES.int4;

export interface IntegerScheme {
  readonly name: string;
  readonly aliases: readonly string[];
  readonly format: 'int8' | 'int4';
  /** null: inputs are not quantized. */
  readonly activation: QuantKey | null;
  /** What happens to inputs, as the end of the summary; absent: nothing. */
  readonly inputs?: string;
  /** Variants by group; without, a scale is one row's. */
  readonly grouped?: boolean;
  /** Group variants also come with searched scales, as `:gG:mse`. */
  readonly searched?: boolean;
}

interface Variant {
  /** 0: the whole row. */
  readonly groupK: 0 | (typeof GROUP_SIZES)[number];
  readonly isSearched: boolean;
}

/**
 * Symmetric integers: scale = amax / maxCode, code = round(w / scale) with ties to even. One scale a row under the
 * bare name, one for every G columns of a row under `<name>:gG`, and under `<name>:gG:mse` the one of 32 that has
 * the least squared error. Those are negative where the element of the largest magnitude is positive, so that it
 * falls on the end of the codes that has one more, -maxCode - 1. The first of them loses what `<name>:gG` does.
 */
export function createIntegerFamily(spec: IntegerScheme): SchemeFamily {
  const groups = spec.grouped === true ? GROUP_SIZES : [];
  const grouped = groups.map((groupK) => createVariant(spec, { groupK, isSearched: false }));
  const searched = (spec.searched === true ? groups : []).map((groupK) =>
    createVariant(spec, { groupK, isSearched: true }),
  );
  const whole = createVariant(spec, { groupK: 0, isSearched: false });
  return Object.freeze({ name: spec.name, variants: [whole, ...grouped, ...searched] as const });
}

function createVariant(spec: IntegerScheme, { groupK, isSearched }: Variant): QuantScheme {
  const { name, format, inputs } = spec;
  const suffix = `${groupK === 0 ? '' : `:g${groupK}`}${isSearched ? ':mse' : ''}`;
  const maxCode = MAX_CODES[format];
  const minCode = isSearched ? -maxCode - 1 : -maxCode;
  const encode = (quotient: number): number =>
    Math.max(minCode, Math.min(maxCode, roundHalfToEven(quotient)));
  const decode = (code: number): number => signExtend(code, BITS[format]);
  const span = groupK === 0 ? 'an output channel' : `for ${groupK} inputs`;
  return createTileScheme({
    name: `${name}${suffix}`,
    aliases: spec.aliases.map((alias) => `${alias}${suffix}`),
    summary: `${format} weights, one ${isSearched ? 'searched ' : ''}scale ${span}${inputs === undefined ? '' : `; ${inputs}`}`,
    activation: spec.activation,
    native: { format, groupN: 1, groupK, ...(isSearched ? { search: true as const } : {}) },
    weight: { element: format, maxError: { relative: 0, ofScale: isSearched ? SEARCH_ERROR : 0.5 } },
    findScale: isSearched ? searchIntegerScale(maxCode, { encode, decode }) : scaleToMaximum(maxCode),
    encode,
    decode,
  });
}

function searchIntegerScale(
  maxCode: number,
  code: {
    readonly encode: (quotient: number) => number;
    readonly decode: (code: number) => number;
  },
): (values: Float32Array) => number {
  return (values) =>
    searchScale(values, {
      first: (group) => divideFloat32(extremeOf(group), -maxCode),
      candidates: SEARCH_CANDIDATES,
      round: (scale) => (Number.isFinite(Math.fround(scale * (maxCode + 1))) ? scale : Infinity),
      ...code,
      fallback: 1,
    });
}
