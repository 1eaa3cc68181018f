import type { Initializer } from '../../graph/ir.js';
import { encodeFp16 } from '../../quant/numerics/fp16.js';

// Panels of custom-ops/include/fdq/formats.h to the row-major layouts of standard operators.
const PANEL_ROWS = 16;
const K_ALIGN = 64;
/** Two's complement to MatMulNBits' codes, whose zero points are 128 and 8, two in a byte. */
const FLIP_INT8 = 0x80;
const FLIP_BOTH_INT4 = 0x88;

/** A tensor of the lowered graph and where its bytes come from. */
export type StockTensor =
  SourcedTensor | { readonly target: Initializer; readonly compute: () => Uint8Array };

export interface SourcedTensor {
  /** Initializer of the packed graph. */
  readonly source: string;
  readonly target: Initializer;
  /** All bytes of the source to all bytes of the target; absent: they are the same. */
  readonly convert?: (bytes: Uint8Array) => Uint8Array;
}

/** A stack of matrices [n_i, k], each with panels of its own. */
export interface PanelStack {
  readonly rows: readonly number[];
  readonly k: number;
}

/** int4 panels to MatMulNBits' [n, blocks, block / 2], code + 8, even columns in the low nibble. */
export function unpackInt4Blocks({ rows, k }: PanelStack, block: number, panels: Uint8Array): Uint8Array {
  const rowBytes = Math.ceil(k / block) * (block / 2);
  const out = new Uint8Array(sum(rows) * rowBytes).fill(FLIP_BOTH_INT4);
  const panelBytes = (paddedK(k) / 2) * PANEL_ROWS;
  const quads = Math.min(paddedK(k) / 4, rowBytes / 2);
  eachRow(rows, (panel, lane, row) => {
    for (let quad = 0; quad < quads; quad++) {
      const at = panel * panelBytes + (quad * PANEL_ROWS + lane) * 2;
      const even = panels[at] as number;
      const odd = panels[at + 1] as number;
      const to = row * rowBytes + quad * 2;
      out[to] = ((even & 0xf) | ((odd & 0xf) << 4)) ^ FLIP_BOTH_INT4;
      out[to + 1] = ((even >> 4) | (odd & 0xf0)) ^ FLIP_BOTH_INT4;
    }
  });
  return out;
}

/** int8 panels to MatMulNBits' [n, blocks, block], code + 128. */
export function unpackInt8Blocks(stack: PanelStack, block: number, panels: Uint8Array): Uint8Array {
  return unpackBytes(stack, { stride: Math.ceil(stack.k / block) * block, flip: FLIP_INT8, panels });
}

/** 8-bit panels to rows [n, k]. */
export function unpackRows(stack: PanelStack, panels: Uint8Array): Uint8Array {
  return unpackBytes(stack, { stride: stack.k, flip: 0, panels });
}

function unpackBytes(
  { rows, k }: PanelStack,
  to: { readonly stride: number; readonly flip: number; readonly panels: Uint8Array },
): Uint8Array {
  const { stride, flip, panels } = to;
  const out = new Uint8Array(sum(rows) * stride).fill(flip);
  const panelBytes = paddedK(k) * PANEL_ROWS;
  eachRow(rows, (panel, lane, row) => {
    for (let column = 0; column < k; column++) {
      const at = panel * panelBytes + ((column >> 1) * PANEL_ROWS + lane) * 2 + (column & 1);
      out[row * stride + column] = (panels[at] as number) ^ flip;
    }
  });
  return out;
}

/**
 * Scales of rows, float32 [panels, groups, 16], to [n, blocks].
 * @param repeat blocks each scale is written for: one scale a row is every block's
 */
export function unpackScales(
  { rows }: PanelStack,
  groups: number,
  repeat: number,
  bytes: Uint8Array,
): Uint8Array {
  const packed = asFloats(bytes);
  const blocks = groups * repeat;
  const out = new Float32Array(sum(rows) * blocks);
  eachRow(rows, (panel, lane, row) => {
    for (let block = 0; block < blocks; block++) {
      const group = Math.floor(block / repeat);
      out[row * blocks + block] = packed[(panel * groups + group) * PANEL_ROWS + lane] as number;
    }
  });
  return new Uint8Array(out.buffer);
}

/** Tiles [ceil(n_i / 128), ceil(k / 128)] of each member to a scale a row, [n, ceil(k / 128)]. */
export function spreadTiles({ rows, k }: PanelStack, bytes: Uint8Array): Uint8Array {
  const tile = 128;
  const tiles = asFloats(bytes);
  const across = Math.ceil(k / tile);
  const out = new Float32Array(sum(rows) * across);
  let firstRow = 0;
  let firstTile = 0;
  for (const count of rows) {
    for (let row = 0; row < count; row++) {
      const from = (firstTile + Math.floor(row / tile)) * across;
      out.set(tiles.subarray(from, from + across), (firstRow + row) * across);
    }
    firstRow += count;
    firstTile += Math.ceil(count / tile);
  }
  return new Uint8Array(out.buffer);
}

/** One scale a member to one a row, [n]. */
export function spreadMembers({ rows }: PanelStack, bytes: Uint8Array): Uint8Array {
  const scales = asFloats(bytes);
  const out = Float32Array.from(
    rows.flatMap((count, m) => new Array<number>(count).fill(scales[m] as number)),
  );
  return new Uint8Array(out.buffer);
}

/** float32 to float16. */
export function asFloat16(bytes: Uint8Array): Uint8Array {
  return new Uint8Array(Uint16Array.from(asFloats(bytes), encodeFp16).buffer);
}

function eachRow(rows: readonly number[], visit: (panel: number, lane: number, row: number) => void): void {
  let firstPanel = 0;
  let firstRow = 0;
  for (const count of rows) {
    for (let row = 0; row < count; row++) {
      visit(firstPanel + Math.floor(row / PANEL_ROWS), row % PANEL_ROWS, firstRow + row);
    }
    firstPanel += Math.ceil(count / PANEL_ROWS);
    firstRow += count;
  }
}

function paddedK(k: number): number {
  return Math.ceil(k / K_ALIGN) * K_ALIGN;
}

function asFloats(bytes: Uint8Array): Float32Array {
  return new Float32Array(bytes.slice().buffer);
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
