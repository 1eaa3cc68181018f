import { roundHalfToEven } from './rounding.js';

// float8_e4m3fn (OCP 8-bit floating point specification 1.0): sign, 4 exponent bits (bias 7), 3 mantissa
// bits, no infinity, 0x7f and 0xff NaN.

/** Largest finite value. */
export const E4M3_MAX = 448;
const MAX_CODE = 0x7e;
const NAN_CODE = 0x7f;
const SIGN = 0x80;
const MIN_NORMAL = 2 ** -6;
const SUBNORMAL_UNITS = 2 ** 9;
/** Mantissa bits of float32 that e4m3 does not have. */
const DROPPED_BITS = 20;
const DROPPED_HALF_MINUS_ONE = 0x7ffff;
/** (127 - 7) << 3: difference of the exponent biases, in codes. */
const BIAS_DIFFERENCE = 960;

const float = new Float32Array(1);
const bits = new Uint32Array(float.buffer);

/** [256] value of each code. */
const DECODED = Float32Array.from({ length: 256 }, (_, code) => decode(code));

/**
 * float32 to e4m3fn: nearest value, ties to the even code, saturating to ±448 (infinities too); the sign of
 * zero is kept. NaN gives a NaN code.
 */
export function encodeE4m3(x: number): number {
  float[0] = x;
  const word = bits[0] as number;
  const sign = (word >>> 24) & SIGN;
  const magnitude = Math.abs(x);
  if (magnitude >= E4M3_MAX) return sign | MAX_CODE;
  // 8 units are the smallest normal number, and 8 is its code.
  if (magnitude < MIN_NORMAL) return sign | roundHalfToEven(magnitude * SUBNORMAL_UNITS);
  if (Number.isNaN(x)) return sign | NAN_CODE;
  const absolute = word & 0x7fffffff;
  const isOdd = (absolute >>> DROPPED_BITS) & 1;
  return sign | (((absolute + DROPPED_HALF_MINUS_ONE + isOdd) >>> DROPPED_BITS) - BIAS_DIFFERENCE);
}

/** The float32 value of an e4m3fn code, 0..255. */
export function decodeE4m3(code: number): number {
  return DECODED[code] as number;
}

function decode(code: number): number {
  const sign = (code & SIGN) === 0 ? 1 : -1;
  const exponent = (code >>> 3) & 15;
  const mantissa = code & 7;
  if ((code & ~SIGN) === NAN_CODE) return NaN;
  if (exponent === 0) return (sign * mantissa) / SUBNORMAL_UNITS;
  return sign * (1 + mantissa / 8) * 2 ** (exponent - 7);
}
