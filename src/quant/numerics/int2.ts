/** Largest of the four levels -3, -1, 1, 3. */
export const INT2_MAX = 3;

/** float32 to the code, 0..3, of the nearest of the levels -3, -1, 1, 3; a tie goes to the higher one. */
export function encodeInt2(x: number): number {
  return Number(x >= -2) + Number(x >= 0) + Number(x >= 2);
}

/** The level of a code, 0..3. */
export function decodeInt2(code: number): number {
  return 2 * code - INT2_MAX;
}
