import type { NativeFormat, QuantizedParts } from './scheme.js';
import { int4RowBytes, readInt4 } from './numerics/int4.js';
import { tilesAcross } from './numerics/tiles.js';

// The panel layout of custom-ops/include/fdq/formats.h:
//
//   k is padded with zero codes to kPadded, a multiple of 64; 16 output rows make a panel; rows past n are
//   zero codes with scale 1. The members of a fused layer follow each other, no panel holds rows of two.
//
//   8 bit  [kPadded / 2][16 rows][2 k]   byte[(p * 16 + r) * 2 + j] = code(r, k = 2p + j)
//   int4   [kPadded / 4][16 rows][2 k]   byte[(h * 16 + r) * 2 + j] = code(r, k = 4h + j)     low nibble
//                                                                    code(r, k = 4h + 2 + j) high nibble
//
//   scales, float32: [panels][groups][16], or canonical 128 x 128 tiles [ceil(n / 128)][ceil(k / 128)]
const PANEL_ROWS = 16;
const K_ALIGN = 64;
const LOW = 0;
const HIGH = 1;

/** Where one member of a fused layer lies in the layer's weight and scales. */
export interface MemberSlice {
  /** Bytes. */
  readonly weightOffset: number;
  readonly weightBytes: number;
  /** Floats. */
  readonly scaleOffset: number;
  readonly scaleCount: number;
}

export function paddedK(k: number): number {
  return Math.ceil(k / K_ALIGN) * K_ALIGN;
}

export function numPanels(rows: number): number {
  return Math.ceil(rows / PANEL_ROWS);
}

/** Shape of the weight initializer in elements of its ONNX type. */
export function packedWeightShape(
  memberRows: readonly number[],
  k: number,
  format: NativeFormat['format'],
): readonly number[] {
  const panels = memberRows.reduce((sum, rows) => sum + numPanels(rows), 0);
  return format === 'int4'
    ? [panels, paddedK(k) / 4, PANEL_ROWS * 4]
    : [panels, paddedK(k) / 2, PANEL_ROWS * 2];
}

export function packedWeightBytes(
  memberRows: readonly number[],
  k: number,
  format: NativeFormat['format'],
): number {
  return memberRows.reduce((sum, rows) => sum + numPanels(rows) * panelBytes(k, format), 0);
}

/** Shape of the float32 scales initializer. */
export function scaleShape(
  memberRows: readonly number[],
  k: number,
  native: NativeFormat,
): readonly number[] {
  const across = tilesAcross(k, native.groupK);
  if (native.groupN === 1) {
    return [memberRows.reduce((sum, rows) => sum + numPanels(rows), 0), across, PANEL_ROWS];
  }
  return [memberRows.reduce((sum, rows) => sum + Math.ceil(rows / native.groupN), 0), across];
}

export function scaleCount(memberRows: readonly number[], k: number, native: NativeFormat): number {
  return scaleShape(memberRows, k, native).reduce((product, size) => product * size, 1);
}

/** One slice a member, in order; together they cover weight and scales exactly. */
export function memberSlices(
  memberRows: readonly number[],
  k: number,
  native: NativeFormat,
): readonly MemberSlice[] {
  let weightOffset = 0;
  let scaleOffset = 0;
  return memberRows.map((rows) => {
    const slice = {
      weightOffset,
      weightBytes: packedWeightBytes([rows], k, native.format),
      scaleOffset,
      scaleCount: scaleCount([rows], k, native),
    };
    weightOffset += slice.weightBytes;
    scaleOffset += slice.scaleCount;
    return slice;
  });
}

/** A matrix and how it is stored. */
export interface PackedMatrix {
  readonly n: number;
  readonly k: number;
  readonly native: NativeFormat;
}

/** Canonical codes and scales of one member to panels. */
export function packPanels(matrix: PackedMatrix, { codes, scales }: QuantizedParts): QuantizedParts {
  const { n, k, native } = matrix;
  const packed = new Uint8Array(packedWeightBytes([n], k, native.format));
  for (let row = 0; row < n; row++) {
    for (let column = 0; column < k; column++) {
      if (native.format === 'int4') {
        const code = readInt4(codes[row * int4RowBytes(k) + (column >> 1)] as number, column & 1);
        const { byte, nibble } = locateInt4(row, column, k);
        packed[byte] = (packed[byte] as number) | ((code & 0xf) << (4 * nibble));
      } else {
        packed[locateByte(row, column, k)] = codes[row * k + column] as number;
      }
    }
  }
  return { codes: packed, scales: packScales(matrix, scales) };
}

/** Inverse of `packPanels`; padding is dropped. */
export function unpackPanels(
  matrix: PackedMatrix,
  { codes: packed, scales }: QuantizedParts,
): QuantizedParts {
  const { n, k, native } = matrix;
  const stride = native.format === 'int4' ? int4RowBytes(k) : k;
  const codes = new Uint8Array(n * stride);
  for (let row = 0; row < n; row++) {
    for (let column = 0; column < k; column++) {
      if (native.format === 'int4') {
        const { byte, nibble } = locateInt4(row, column, k);
        const code = readInt4(packed[byte] as number, nibble);
        const at = row * stride + (column >> 1);
        codes[at] = (codes[at] as number) | ((code & 0xf) << (4 * (column & 1)));
      } else {
        codes[row * stride + column] = packed[locateByte(row, column, k)] as number;
      }
    }
  }
  return { codes, scales: unpackScales(matrix, scales) };
}

/** [n, groups] to [panels, groups, 16]; tiles stay as they are. */
function packScales({ n, k, native }: PackedMatrix, scales: Float32Array): Float32Array {
  if (native.groupN !== 1) return scales.slice();
  const groups = tilesAcross(k, native.groupK);
  const packed = new Float32Array(scaleCount([n], k, native)).fill(1);
  for (const [at, scale] of scales.entries()) {
    packed[locateScale(Math.floor(at / groups), at % groups, groups)] = scale;
  }
  return packed;
}

function unpackScales({ n, k, native }: PackedMatrix, packed: Float32Array): Float32Array {
  if (native.groupN !== 1) return packed.slice();
  const groups = tilesAcross(k, native.groupK);
  return Float32Array.from(
    { length: n * groups },
    (_, at) => packed[locateScale(Math.floor(at / groups), at % groups, groups)] as number,
  );
}

function panelBytes(k: number, format: NativeFormat['format']): number {
  return (paddedK(k) * PANEL_ROWS) / (format === 'int4' ? 2 : 1);
}

/** Byte of an 8-bit code. */
function locateByte(row: number, column: number, k: number): number {
  const panel = Math.floor(row / PANEL_ROWS) * panelBytes(k, 'int8');
  return panel + ((column >> 1) * PANEL_ROWS + (row % PANEL_ROWS)) * 2 + (column & 1);
}

function locateInt4(
  row: number,
  column: number,
  k: number,
): { readonly byte: number; readonly nibble: number } {
  const panel = Math.floor(row / PANEL_ROWS) * panelBytes(k, 'int4');
  const byte = panel + ((column >> 2) * PANEL_ROWS + (row % PANEL_ROWS)) * 2 + (column & 1);
  return { byte, nibble: (column & 2) === 0 ? LOW : HIGH };
}

function locateScale(row: number, group: number, groups: number): number {
  return (Math.floor(row / PANEL_ROWS) * groups + group) * PANEL_ROWS + (row % PANEL_ROWS);
}
