import { packedRowBytes } from './numerics/packing.js';
import type { CodeBits } from './numerics/packing.js';
import { tilesAcross } from './numerics/tiles.js';
import type { BlockScaleType, NativeFormat, QuantizedParts } from './scheme.js';

// The panel layout of custom-ops/include/fdq/formats.h:
//
//   k is padded with zero codes to kPadded, a multiple of 64; 16 output rows make a panel; rows past n are
//   zero codes with scale 1. The members of a fused layer follow each other, no panel holds rows of two.
//
//   Pairs of k lie side by side, and 8 / bits pairs share two bytes, P = 8 / bits:
//     [kPadded / 2P][16 rows][2 k]   bits q * bits and up of byte[(h * 16 + r) * 2 + j] = code(r, k = 2Ph + 2q + j)
//
//   scales, float32: [panels][groups][16], canonical 128 x 128 tiles [ceil(n / 128)][ceil(k / 128)], [1] a member
//   block scales, of their type: [panels][ceil(k / columns)][16]; zero points, int8: as the scales of groups
const PANEL_ROWS = 16;
const K_ALIGN = 64;

const CODE_BITS: Readonly<Record<NativeFormat['format'], CodeBits>> = {
  int8: 8,
  e4m3: 8,
  int4: 4,
  nf4: 4,
  e2m1: 4,
  int2: 2,
};

interface BlockScaleRow {
  readonly bytes: 1 | 2;
  /** Code of 1.0. */
  readonly one: number;
}

const BLOCK_SCALES: Readonly<Record<BlockScaleType, BlockScaleRow>> = {
  e4m3: { bytes: 1, one: 0x38 },
  e8m0: { bytes: 1, one: 127 },
  bfloat16: { bytes: 2, one: 0x3f80 },
};

/** Where one member of a fused layer lies in the layer's parts. */
export interface MemberSlice {
  /** Bytes. */
  readonly weightOffset: number;
  readonly weightBytes: number;
  /** Floats. */
  readonly scaleOffset: number;
  readonly scaleCount: number;
  /** Bytes; 0 without block scales. */
  readonly blockScaleOffset: number;
  readonly blockScaleBytes: number;
  /** Bytes; 0 where the format is symmetric. */
  readonly zeroPointOffset: number;
  readonly zeroPointCount: number;
}

export function codeBits(format: NativeFormat['format']): CodeBits {
  return CODE_BITS[format];
}

/** Bytes of a block scale. */
export function blockScaleBytes(type: BlockScaleType): 1 | 2 {
  return BLOCK_SCALES[type].bytes;
}

export function paddedK(k: number): number {
  return Math.ceil(k / K_ALIGN) * K_ALIGN;
}

export function numPanels(rows: number): number {
  return Math.ceil(rows / PANEL_ROWS);
}

/** Columns of a row of canonical codes: e2m1 is padded to whole blocks. */
export function canonicalColumns(k: number, { format, block }: NativeFormat): number {
  return format === 'e2m1' && block !== undefined ? Math.ceil(k / block.columns) * block.columns : k;
}

/** Shape of the weight initializer in elements of its ONNX type: int4 codes, or bytes. */
export function packedWeightShape(
  memberRows: readonly number[],
  k: number,
  format: NativeFormat['format'],
): readonly number[] {
  const panels = countPanels(memberRows);
  const pairs = 8 / codeBits(format);
  const elements = format === 'int4' ? 4 : 2;
  return [panels, paddedK(k) / (2 * pairs), PANEL_ROWS * elements];
}

export function packedWeightBytes(
  memberRows: readonly number[],
  k: number,
  format: NativeFormat['format'],
): number {
  return countPanels(memberRows) * panelBytes(k, format);
}

/** Shape of the float32 scales initializer; empty where the format has none. */
export function scaleShape(
  memberRows: readonly number[],
  k: number,
  native: NativeFormat,
): readonly number[] {
  const across = tilesAcross(k, native.groupK);
  switch (native.groupN) {
    case -1:
      return [0];
    case 0:
      return [memberRows.length];
    case 1:
      return [countPanels(memberRows), across, PANEL_ROWS];
    default:
      return [memberRows.reduce((sum, rows) => sum + Math.ceil(rows / native.groupN), 0), across];
  }
}

export function scaleCount(memberRows: readonly number[], k: number, native: NativeFormat): number {
  return scaleShape(memberRows, k, native).reduce((product, size) => product * size, 1);
}

/** Shape of the block scales in elements of their type; empty where the format has none. */
export function blockScaleShape(
  memberRows: readonly number[],
  k: number,
  { block }: NativeFormat,
): readonly number[] {
  return block === undefined ? [0] : [countPanels(memberRows), Math.ceil(k / block.columns), PANEL_ROWS];
}

/** Bytes of all parts of a layer, padding included. */
export function packedBytes(memberRows: readonly number[], k: number, native: NativeFormat): number {
  const slices = memberSlices(memberRows, k, native);
  return slices.reduce(
    (sum, { weightBytes, scaleCount: scales, blockScaleBytes: blocks, zeroPointCount }) =>
      sum + weightBytes + Float32Array.BYTES_PER_ELEMENT * scales + blocks + zeroPointCount,
    0,
  );
}

/** One slice a member, in order; together they cover every part exactly. */
export function memberSlices(
  memberRows: readonly number[],
  k: number,
  native: NativeFormat,
): readonly MemberSlice[] {
  let next = { weightOffset: 0, scaleOffset: 0, blockScaleOffset: 0, zeroPointOffset: 0 };
  return memberRows.map((rows) => {
    const scales = scaleCount([rows], k, native);
    const slice = {
      ...next,
      weightBytes: packedWeightBytes([rows], k, native.format),
      scaleCount: scales,
      blockScaleBytes: blockBytes(rows, k, native),
      zeroPointCount: native.asymmetric === true ? scales : 0,
    };
    next = {
      weightOffset: slice.weightOffset + slice.weightBytes,
      scaleOffset: slice.scaleOffset + slice.scaleCount,
      blockScaleOffset: slice.blockScaleOffset + slice.blockScaleBytes,
      zeroPointOffset: slice.zeroPointOffset + slice.zeroPointCount,
    };
    return slice;
  });
}

/** A matrix and how it is stored. */
export interface PackedMatrix {
  readonly n: number;
  readonly k: number;
  readonly native: NativeFormat;
}

/** Canonical parts of one member to panels. */
export function packPanels({ n, k, native }: PackedMatrix, parts: QuantizedParts): QuantizedParts {
  const codes = new Uint8Array(packedWeightBytes([n], k, native.format));
  for (const { stored, packed, mask } of eachCode({ n, k, native })) {
    const code = ((parts.codes[stored.byte] as number) >> stored.shift) & mask;
    codes[packed.byte] = (codes[packed.byte] as number) | (code << packed.shift);
  }
  const { block, groupK, groupN } = native;
  const across = tilesAcross(k, groupK);
  const scales = new Float32Array(scaleCount([n], k, native)).fill(1);
  if (groupN === 1) toPanels(parts.scales, scales, { across });
  else scales.set(parts.scales);
  const packed: QuantizedParts = { codes, scales };
  const { blockScales, zeroPoints } = parts;
  return {
    ...packed,
    ...(blockScales === undefined || block === undefined
      ? {}
      : { blockScales: packBlockScales(blockScales, { n, k, native: { ...native, block } }) }),
    ...(zeroPoints === undefined
      ? {}
      : { zeroPoints: toPanels(zeroPoints, new Int8Array(scales.length), { across }) }),
  };
}

/** Inverse of `packPanels`; padding is dropped. */
export function unpackPanels({ n, k, native }: PackedMatrix, parts: QuantizedParts): QuantizedParts {
  const codes = new Uint8Array(n * packedRowBytes(canonicalColumns(k, native), codeBits(native.format)));
  for (const { stored, packed, mask } of eachCode({ n, k, native })) {
    const code = ((parts.codes[packed.byte] as number) >> packed.shift) & mask;
    codes[stored.byte] = (codes[stored.byte] as number) | (code << stored.shift);
  }
  const { block, groupK, groupN } = native;
  const across = tilesAcross(k, groupK);
  const { blockScales, zeroPoints } = parts;
  const scales =
    groupN === 1 ? fromPanels(parts.scales, new Float32Array(n * across), { across }) : parts.scales.slice();
  const unpacked: QuantizedParts = { codes, scales };
  return {
    ...unpacked,
    ...(blockScales === undefined || block === undefined
      ? {}
      : { blockScales: unpackBlockScales(blockScales, { n, k, native: { ...native, block } }) }),
    ...(zeroPoints === undefined
      ? {}
      : { zeroPoints: fromPanels(zeroPoints, new Int8Array(n * across), { across }) }),
  };
}

interface CodePlace {
  readonly byte: number;
  /** Of the code's lowest bit. */
  readonly shift: number;
}

/** Where each code of a matrix lies in canonical order and in panels. */
function* eachCode({ n, k, native }: PackedMatrix): Generator<{
  readonly stored: CodePlace;
  readonly packed: CodePlace;
  readonly mask: number;
}> {
  const bits = codeBits(native.format);
  const pairs = 8 / bits;
  const stride = packedRowBytes(canonicalColumns(k, native), bits);
  const panel = panelBytes(k, native.format);
  for (let row = 0; row < n; row++) {
    const start = Math.floor(row / PANEL_ROWS) * panel + (row % PANEL_ROWS) * 2;
    for (let column = 0; column < k; column++) {
      const pair = column >> 1;
      yield {
        mask: (1 << bits) - 1,
        stored: { byte: row * stride + ((column * bits) >> 3), shift: (column * bits) & 7 },
        packed: {
          byte: start + Math.floor(pair / pairs) * PANEL_ROWS * 2 + (column & 1),
          shift: (pair % pairs) * bits,
        },
      };
    }
  }
}

type BlockMatrix = PackedMatrix & { readonly native: { readonly block: NonNullable<NativeFormat['block']> } };

function packBlockScales(rows: Uint8Array, { n, k, native }: BlockMatrix): Uint8Array {
  const { bytes, one } = BLOCK_SCALES[native.block.type];
  const padding = Uint8Array.from({ length: blockBytes(n, k, native) }, (_, at) => one >> (8 * (at % bytes)));
  return toPanels(rows, padding, { across: Math.ceil(k / native.block.columns), unit: bytes });
}

function unpackBlockScales(panels: Uint8Array, { n, k, native }: BlockMatrix): Uint8Array {
  const unit = blockScaleBytes(native.block.type);
  const across = Math.ceil(k / native.block.columns);
  return fromPanels(panels, new Uint8Array(n * across * unit), { across, unit });
}

interface RowLayout {
  /** Entries of a row. */
  readonly across: number;
  /** Array elements of an entry. */
  readonly unit?: number;
}

/** Any typed array of scales. */
interface Entries {
  readonly length: number;
  [index: number]: number;
}

/** [rows, across] entries to [panels, across, 16] in `panels`, which keeps its padding. */
function toPanels<T extends Entries>(rows: Entries, panels: T, { across, unit = 1 }: RowLayout): T {
  for (let at = 0; at < rows.length; at++) panels[locate(at, across, unit)] = rows[at] as number;
  return panels;
}

/** Inverse of `toPanels`. */
function fromPanels<T extends Entries>(panels: Entries, rows: T, { across, unit = 1 }: RowLayout): T {
  for (let at = 0; at < rows.length; at++) rows[at] = panels[locate(at, across, unit)] as number;
  return rows;
}

/** Place in panels of element `at` of canonical rows. */
function locate(at: number, across: number, unit: number): number {
  const entry = Math.floor(at / unit);
  const row = Math.floor(entry / across);
  const panel = Math.floor(row / PANEL_ROWS) * across + (entry % across);
  return (panel * PANEL_ROWS + (row % PANEL_ROWS)) * unit + (at % unit);
}

function countPanels(memberRows: readonly number[]): number {
  return memberRows.reduce((sum, rows) => sum + numPanels(rows), 0);
}

function panelBytes(k: number, format: NativeFormat['format']): number {
  return (paddedK(k) * PANEL_ROWS * codeBits(format)) / 8;
}

function blockBytes(rows: number, k: number, native: NativeFormat): number {
  if (native.block === undefined) return 0;
  const count = blockScaleShape([rows], k, native).reduce((product, size) => product * size, 1);
  return count * blockScaleBytes(native.block.type);
}
