// float4_e2m1fn (OCP Microscaling Formats specification 1.0): sign, 2 exponent bits (bias 1), 1 mantissa bit, no
// infinity and no NaN.

/** Largest value. */
export const E2M1_MAX = 6;
const SIGN = 8;

/** [8] values of the codes without sign. */
const MAGNITUDES = [0, 0.5, 1, 1.5, 2, 3, 4, 6] as const;

/** [7] between neighbouring magnitudes; a tie goes to the even code, so up from code i where i is odd. */
const MIDPOINTS = MAGNITUDES.slice(1).map((next, i) => (next + (MAGNITUDES[i] as number)) / 2);

/**
 * float32 to e2m1, 0..15: nearest value, ties to the even code, saturating to ±6 (infinities too); the sign of
 * zero is kept. NaN, which e2m1 does not have, gives code 0.
 */
export function encodeE2m1(x: number): number {
  const magnitude = Math.abs(x);
  let code = 0;
  for (const midpoint of MIDPOINTS) {
    if (magnitude > midpoint || (magnitude === midpoint && code % 2 === 1)) code++;
  }
  return x < 0 || Object.is(x, -0) ? SIGN | code : code;
}

/** The value of an e2m1 code, 0..15. */
export function decodeE2m1(code: number): number {
  const magnitude = MAGNITUDES[code & (SIGN - 1)] as number;
  return (code & SIGN) === 0 ? magnitude : -magnitude;
}
