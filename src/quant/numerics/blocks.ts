import { divideFloat32 } from './rounding.js';
import { absoluteMaximum, requireFinite } from './tiles.js';
import type { Rows } from './tiles.js';

/** Codes with a narrow scale for each block of columns, and perhaps a float32 scale of the tensor on top. */
export interface BlockRule {
  /** Of a block. */
  readonly columns: number;
  /** The scale of all blocks from the largest magnitude of the tensor; absent: there is none. */
  readonly findTensorScale?: ((amax: number) => number) | undefined;
  /** Code of a block's scale; its values are finite. */
  readonly findScale: (values: Float32Array, tensorScale: number) => number;
  /** The value of a scale code. */
  readonly decodeScale: (code: number) => number;
  /** Code of w / step, 0..255; where the step is 0, that of 0. */
  readonly encode: (quotient: number) => number;
}

export interface BlockCodes {
  /** [rows, kPadded], one code a byte; kPadded is k in whole blocks, and columns past k are codes of 0. */
  readonly codes: Uint8Array;
  /** [rows, ceil(k / columns)], as many bits as the scale type has. */
  readonly scaleCodes: Uint16Array;
  /** [1], or [0] without one. */
  readonly tensorScale: Float32Array;
}

/**
 * Quantization in blocks of a row: step = scale of the block times that of the tensor, code = encode(w / step), all
 * in float32 with true division.
 * @param given the scale of the tensor where it is not that of these values; what lies beyond its reach saturates
 * @throws UserError `non_finite_weight` at the first NaN or infinity in row-major order.
 */
export function quantizeBlocks(matrix: Rows, rule: BlockRule, given?: number): BlockCodes {
  requireFinite(matrix);
  const { rows, k, values } = matrix;
  const across = Math.ceil(k / rule.columns);
  const stride = across * rule.columns;
  const codes = new Uint8Array(rows * stride);
  const scaleCodes = new Uint16Array(rows * across);
  const tensorScale = given ?? rule.findTensorScale?.(absoluteMaximum(values));
  for (let block = 0; block < scaleCodes.length; block++) {
    const row = Math.floor(block / across);
    const left = (block % across) * rule.columns;
    const part = values.subarray(row * k + left, row * k + Math.min(left + rule.columns, k));
    const scaleCode = rule.findScale(part, tensorScale ?? 1);
    scaleCodes[block] = scaleCode;
    const step = Math.fround(rule.decodeScale(scaleCode) * (tensorScale ?? 1));
    for (let at = 0; at < rule.columns; at++) {
      const quotient = step === 0 ? 0 : divideFloat32(part[at] ?? 0, step);
      codes[row * stride + left + at] = rule.encode(quotient);
    }
  }
  return {
    codes,
    scaleCodes,
    tensorScale: Float32Array.of(...(tensorScale === undefined ? [] : [tensorScale])),
  };
}

/** Inverse of `quantizeBlocks`: decode(code) * step in float32, [rows, k]. */
export function dequantizeBlocks(
  { codes, scaleCodes, tensorScale: [tensorScale = 1] }: BlockCodes,
  k: number,
  rule: Pick<BlockRule, 'columns' | 'decodeScale'>,
  decode: (code: number) => number,
): Float32Array {
  const across = Math.ceil(k / rule.columns);
  const stride = across * rule.columns;
  const rows = codes.length / stride;
  return Float32Array.from({ length: rows * k }, (_, at) => {
    const row = Math.floor(at / k);
    const column = at % k;
    const scaleCode = scaleCodes[row * across + Math.floor(column / rule.columns)] as number;
    const step = Math.fround(rule.decodeScale(scaleCode) * tensorScale);
    return decode(codes[row * stride + column] as number) * step;
  });
}
