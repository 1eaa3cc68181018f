import { roundHalfToEven } from './rounding.js';

// IEEE 754 binary16: sign, 5 exponent bits (bias 15), 10 mantissa bits.
const MANTISSA_BITS = 10;
const MANTISSA_MASK = 0x3ff;
const EXPONENT_MASK = 0x1f;
const SIGN = 0x8000;
const INFINITY_CODE = 0x7c00;
const NAN_CODE = 0x7e00;
const MIN_EXPONENT = -14;
/** Halfway between the largest finite value, 65504, and the next step; the tie goes to infinity. */
const OVERFLOW = 65520;

/** The value of a binary16 bit pattern; exact. */
export function decodeFp16(code: number): number {
  const sign = (code & SIGN) === 0 ? 1 : -1;
  const exponent = (code >>> MANTISSA_BITS) & EXPONENT_MASK;
  const mantissa = code & MANTISSA_MASK;
  if (exponent === EXPONENT_MASK) return mantissa === 0 ? sign * Infinity : NaN;
  if (exponent === 0) return sign * mantissa * 2 ** (MIN_EXPONENT - MANTISSA_BITS);
  return sign * (1 + mantissa / 2 ** MANTISSA_BITS) * 2 ** (exponent + MIN_EXPONENT - 1);
}

/** Number to binary16 bits, ties to even; 65520 and beyond give an infinity, NaN stays NaN. */
export function encodeFp16(x: number): number {
  if (Number.isNaN(x)) return NAN_CODE;
  const sign = x < 0 || Object.is(x, -0) ? SIGN : 0;
  const magnitude = Math.abs(x);
  if (magnitude >= OVERFLOW) return sign | INFINITY_CODE;
  const exponent = Math.max(floorLog2(magnitude), MIN_EXPONENT);
  // In units of the last place: 0..1023 for subnormals, 1024..2048 for normal numbers; 2048 carries over.
  const units = roundHalfToEven(magnitude * 2 ** (MANTISSA_BITS - exponent));
  return sign | (((exponent - MIN_EXPONENT) << MANTISSA_BITS) + units);
}

/** Largest e with 2^e <= x, at least MIN_EXPONENT, for 0 <= x < OVERFLOW; compares, for logarithms round. */
function floorLog2(x: number): number {
  let exponent = MIN_EXPONENT;
  while (2 ** (exponent + 1) <= x) exponent++;
  return exponent;
}
