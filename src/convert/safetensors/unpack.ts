import { unpackInt4Blocks, unpackInt8Blocks } from '../onnx/stock-weights.js';

const PANEL_ROWS = 16;
const CODES_PER_WORD = { int4: 8, int8: 4 } as const;
const FLIP_BOTH_INT4 = 0x88;

interface Matrix {
  readonly n: number;
  readonly k: number;
}

/** int4 panels to little-endian int32 [n, ceil(k / 8)]: code + 8, the lowest bits first; padding is code 0. */
export function unpackInt4Words({ n, k }: Matrix, panels: Uint8Array): Uint8Array {
  return unpackInt4Blocks({ rows: [n], k }, CODES_PER_WORD.int4, panels);
}

/** int8 panels to little-endian int32 [n, ceil(k / 4)]: code + 128, the lowest bits first; padding is code 0. */
export function unpackInt8Words({ n, k }: Matrix, panels: Uint8Array): Uint8Array {
  return unpackInt8Blocks({ rows: [n], k }, CODES_PER_WORD.int8, panels);
}

/** e2m1 panels to bytes [n, k / 2], even columns in the low nibble; k is a multiple of 8. */
export function unpackE2m1(matrix: Matrix, panels: Uint8Array): Uint8Array {
  return unpackInt4Words(matrix, panels).map((pair) => pair ^ FLIP_BOTH_INT4);
}

/** Scales of a byte for each block, [panels, k / block, 16], to [n, k / block]. */
export function unpackBlockScales({ n, k }: Matrix, block: number, panels: Uint8Array): Uint8Array {
  const across = Math.ceil(k / block);
  const rows = new Uint8Array(n * across);
  for (let row = 0; row < n; row++) {
    const panel = Math.floor(row / PANEL_ROWS);
    for (let at = 0; at < across; at++) {
      rows[row * across + at] = panels[(panel * across + at) * PANEL_ROWS + (row % PANEL_ROWS)] as number;
    }
  }
  return rows;
}
