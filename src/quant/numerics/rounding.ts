/** 2^52: from here on every double is an integer, so adding and subtracting it drops the fraction. */
const INTEGERS_ONLY = 2 ** 52;

/**
 * Nearest integer, ties to even (IEEE 754 roundTiesToEven; `Math.round` rounds ties up). Values that round to
 * zero give +0 whatever their sign; NaN and infinities are returned as they are.
 */
export function roundHalfToEven(x: number): number {
  if (!(Math.abs(x) < INTEGERS_ONLY)) return x;
  return x >= 0 ? x + INTEGERS_ONLY - INTEGERS_ONLY : x - INTEGERS_ONLY + INTEGERS_ONLY;
}

/**
 * The float32 scale that maps `amax` to `maxCode`: amax / maxCode, or 1 where that is 0 (all zeros, or an
 * underflow), so that dividing by a scale is always defined.
 * @param amax finite float32, at least 0
 */
export function safeScale(amax: number, maxCode: number): number {
  const scale = Math.fround(amax / maxCode);
  return scale === 0 ? 1 : scale;
}

/** a / b of two float32 values in float32: the double quotient, rounded once more, is the same number. */
export function divideFloat32(a: number, b: number): number {
  return Math.fround(a / b);
}
