// float8_e8m0fnu (OCP Microscaling Formats specification 1.0): a power of two, exponent + 127; 255 is NaN.
const BIAS = 127;
const NAN_CODE = 255;
/** Largest exponent either way. */
const MAX_EXPONENT = 127;

const FLOAT32_MANTISSA_BITS = 23;
const FLOAT32_EXPONENT_MASK = 0xff;
/** Exponent of the lowest bit of a float32 subnormal. */
const FLOAT32_MIN_BIT = -149;

const float = new Float32Array(1);
const bits = new Uint32Array(float.buffer);

/** The code of 2^exponent, with the exponent limited to -127..127. */
export function encodeE8m0(exponent: number): number {
  return Math.max(-MAX_EXPONENT, Math.min(MAX_EXPONENT, exponent)) + BIAS;
}

/** The float32 value of an e8m0 code, 0..255; the smallest, 2^-127, is a subnormal number. */
export function decodeE8m0(code: number): number {
  return code === NAN_CODE ? NaN : 2 ** (code - BIAS);
}

/** Largest e with 2^e <= x for a finite float32 x > 0, read from its bits: logarithms round. */
export function floorLog2(x: number): number {
  float[0] = x;
  const word = bits[0] as number;
  const exponent = (word >>> FLOAT32_MANTISSA_BITS) & FLOAT32_EXPONENT_MASK;
  return exponent === 0 ? FLOAT32_MIN_BIT + 31 - Math.clz32(word) : exponent - BIAS;
}
