/** A fair coin of a seeded generator: mulberry32 (Tommy Ettinger, 2017, public domain). */
export function createCoin(seed: number): () => boolean {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let bits = Math.imul(state ^ (state >>> 15), state | 1);
    bits ^= bits + Math.imul(bits ^ (bits >>> 7), bits | 61);
    return ((bits ^ (bits >>> 14)) & 1) === 1;
  };
}
