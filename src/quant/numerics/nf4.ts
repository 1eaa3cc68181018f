/**
 * [16] values of the codes of NF4, the 4-bit NormalFloat of QLoRA (Dettmers et al. 2023, arXiv:2305.14314, appendix
 * E): quantiles of a normal distribution scaled to [-1, 1], with an exact zero.
 */
const VALUES = Float32Array.of(
  -1,
  -0.6961928009986877,
  -0.5250730514526367,
  -0.39491748809814453,
  -0.28444138169288635,
  -0.18477343022823334,
  -0.09105003625154495,
  0,
  0.07958029955625534,
  0.16093020141124725,
  0.24611230194568634,
  0.33791524171829224,
  0.44070982933044434,
  0.5626170039176941,
  0.7229568362236023,
  1,
);

/** [15] float32 midpoints between neighbouring values. */
const MIDPOINTS = VALUES.slice(1).map((next, i) => (next + (VALUES[i] as number)) / 2);

/** float32 in [-1, 1] to the nearest NF4 code, 0..15; a midpoint goes to the lower value, as in bitsandbytes. */
export function encodeNf4(x: number): number {
  let code = 0;
  for (const midpoint of MIDPOINTS) if (x > midpoint) code++;
  return code;
}

/** The float32 value of an NF4 code, 0..15. */
export function decodeNf4(code: number): number {
  return VALUES[code] as number;
}
