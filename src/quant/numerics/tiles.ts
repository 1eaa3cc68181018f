import { UserError } from '../../errors.js';
import { divideFloat32, safeScale } from './rounding.js';

/** How values that share a scale lie, and what a code is. */
export interface TileRule {
  /** Rows of a tile; 0: all of them. */
  readonly rows: number;
  /** Columns of a tile; 0: the whole row. */
  readonly columns: number;
  /** The scale of a tile's values, which are in row-major order and finite; never 0. */
  readonly findScale: (values: Float32Array) => number;
  /** Code of w / scale, 0..255. */
  readonly encode: (quotient: number) => number;
}

/** Consecutive rows of a matrix. */
export interface Rows {
  /** Of the tensor, for errors. */
  readonly name: string;
  /** Index of the first row in the tensor. */
  readonly firstRow: number;
  readonly rows: number;
  readonly k: number;
  /** [rows, k] */
  readonly values: Float32Array;
}

export interface TileCodes {
  /** [rows, k], one code a byte. */
  readonly codes: Uint8Array;
  /** [ceil(rows / tile rows), tiles of a row] */
  readonly scales: Float32Array;
}

/** Tiles side by side in a row of `k` columns. */
export function tilesAcross(k: number, columns: number): number {
  return columns === 0 ? 1 : Math.ceil(k / columns);
}

/** The scale that maps the largest magnitude to `maxCode`; see `safeScale`. */
export function scaleToMaximum(maxCode: number): (values: Float32Array) => number {
  return (values) => safeScale(absoluteMaximum(values), maxCode);
}

export function absoluteMaximum(values: Float32Array): number {
  let maximum = 0;
  for (const value of values) maximum = Math.max(maximum, Math.abs(value));
  return maximum;
}

/**
 * Symmetric quantization in tiles: code = encode(w / scale), all in float32 with true division. Tiles at the right
 * and lower edge may be smaller.
 * @throws UserError `non_finite_weight` at the first NaN or infinity in row-major order.
 */
export function quantizeTiles(matrix: Rows, rule: TileRule): TileCodes {
  requireFinite(matrix);
  const { rows, k } = matrix;
  const across = tilesAcross(k, rule.columns);
  const width = rule.columns === 0 ? k : rule.columns;
  const height = rule.rows === 0 ? rows : rule.rows;
  const codes = new Uint8Array(rows * k);
  const scales = new Float32Array(Math.ceil(rows / height) * across);
  for (let tile = 0; tile < scales.length; tile++) {
    const top = Math.floor(tile / across) * height;
    const left = (tile % across) * width;
    const area = { top, bottom: Math.min(top + height, rows), left, right: Math.min(left + width, k) };
    const scale = rule.findScale(readArea(matrix, area));
    scales[tile] = scale;
    for (let row = area.top; row < area.bottom; row++) {
      for (let at = row * k + area.left; at < row * k + area.right; at++) {
        codes[at] = rule.encode(divideFloat32(matrix.values[at] as number, scale));
      }
    }
  }
  return { codes, scales };
}

/** Inverse of `quantizeTiles`: decode(code) * scale in float32, [rows, k]. */
export function dequantizeTiles(
  { codes, scales }: TileCodes,
  k: number,
  rule: Pick<TileRule, 'rows' | 'columns'>,
  decode: (code: number) => number,
): Float32Array {
  const across = tilesAcross(k, rule.columns);
  const width = rule.columns === 0 ? k : rule.columns;
  const height = rule.rows === 0 ? codes.length / k : rule.rows;
  return Float32Array.from(codes, (code, at) => {
    const row = Math.floor(at / k);
    const tile = Math.floor(row / height) * across + Math.floor((at % k) / width);
    return decode(code) * (scales[tile] as number);
  });
}

/** Half-open ranges of rows and columns. */
interface Area {
  readonly top: number;
  readonly bottom: number;
  readonly left: number;
  readonly right: number;
}

/** The values of an area in row-major order; a view where they lie together. */
function readArea({ values, k }: Rows, { top, bottom, left, right }: Area): Float32Array {
  if (bottom - top === 1 || right - left === k) {
    return values.subarray(top * k + left, (bottom - 1) * k + right);
  }
  const width = right - left;
  const area = new Float32Array((bottom - top) * width);
  for (let row = top; row < bottom; row++) {
    area.set(values.subarray(row * k + left, row * k + right), (row - top) * width);
  }
  return area;
}

/** @throws UserError `non_finite_weight` at the first NaN or infinity in row-major order. */
export function requireFinite({ name, firstRow, k, values }: Rows): void {
  const at = values.findIndex((value) => !Number.isFinite(value));
  if (at === -1) return;
  throw new UserError(
    'non_finite_weight',
    `Expected every element of ${name} to be finite but received ${values[at]} at row ${firstRow + Math.floor(at / k)}, column ${at % k}.`,
    {
      param: name,
      suggestions: ['The checkpoint is damaged or was saved from a diverged run: get it again.'],
    },
  );
}
