/** Bits by which a bfloat16 is shorter than a float32. */
const DROPPED_BITS = 16;
const DROPPED_HALF_MINUS_ONE = 0x7fff;
const QUIET_BIT = 0x40;

const float = new Float32Array(1);
const bits = new Uint32Array(float.buffer);

/** The float32 value of a bfloat16 bit pattern; exact. */
export function decodeBf16(code: number): number {
  bits[0] = code << DROPPED_BITS;
  return float[0] as number;
}

/** float32 to bfloat16 bits, ties to even; beyond the largest finite value gives an infinity, NaN stays NaN. */
export function encodeBf16(x: number): number {
  float[0] = x;
  const word = bits[0] as number;
  if (Number.isNaN(x)) return (word >>> DROPPED_BITS) | QUIET_BIT;
  const isOdd = (word >>> DROPPED_BITS) & 1;
  // At most 0xff800000 + 0x8000: no overflow of 32 bits.
  return (word + DROPPED_HALF_MINUS_ONE + isOdd) >>> DROPPED_BITS;
}
