import { BugError } from '../errors.js';
import { acceptsFloatMatrix, matrixShape, readRows } from './float-matrix.js';
import { dequantizeBlocks, quantizeBlocks } from './numerics/blocks.js';
import type { BlockCodes, BlockRule } from './numerics/blocks.js';
import { packCodes, unpackCodes } from './numerics/packing.js';
import { blockScaleBytes, canonicalColumns, codeBits, packedBytes } from './packed-layout.js';
import { emitQuantized, QUANT_LINEAR_OP } from './quant-linear.js';
import type { BlockScaleType, NativeFormat, QuantKey, QuantScheme, RowChunk } from './scheme.js';

/** What distinguishes one weight-only scheme with narrow scales from another. */
export interface BlockScheme
  extends
    Pick<QuantScheme, 'name' | 'aliases' | 'summary' | 'online'>,
    Pick<BlockRule, 'findTensorScale' | 'findScale' | 'decodeScale' | 'encode'> {
  readonly native: NativeFormat & { readonly block: NonNullable<NativeFormat['block']> };
  readonly weight: Pick<QuantKey, 'element' | 'maxError'>;
  /** Value of a code, 0..15. */
  readonly decode: (code: number) => number;
}

const SCALE_TYPES: Readonly<Record<BlockScaleType, QuantKey['scaleType']>> = {
  e4m3: 'float8e4m3fn',
  e8m0: 'float8e8m0',
  bfloat16: 'bfloat16',
};

/** A scheme with a narrow scale for each block of columns, and one of the tensor where `findTensorScale` is. */
export function createBlockScheme(spec: BlockScheme): QuantScheme {
  const { native } = spec;
  const rule: BlockRule = { ...spec, columns: native.block.columns };
  const rowAlign = spec.findTensorScale === undefined ? 1 : Infinity;
  return Object.freeze<QuantScheme>({
    name: spec.name,
    aliases: spec.aliases,
    summary: spec.summary,
    weight: Object.freeze<QuantKey>({
      ...spec.weight,
      scaleType: SCALE_TYPES[native.block.type],
      ...(spec.findTensorScale === undefined ? {} : { tensorScale: true }),
      group: [1, native.block.columns],
      dynamic: false,
      symmetric: true,
    }),
    activation: null,
    requires: { devices: ['cpu'], op: QUANT_LINEAR_OP },
    native,
    online: spec.online,
    ...(spec.findTensorScale === undefined ? {} : { findTensorScale: spec.findTensorScale }),
    rowAlign,
    accepts: acceptsFloatMatrix,
    bytes: ({ shape }) => {
      const { n, k } = matrixShape(shape);
      return packedBytes([n], k, native);
    },
    quantize: (tensor, chunk) => {
      const matrix = readRows(tensor, chunk, rowAlign);
      return toParts(quantizeBlocks(matrix, rule, requireScale(chunk)), matrix, native);
    },
    dequantize: ({ shape }, { codes: packed, scales, blockScales }) => {
      const { n, k } = matrixShape(shape);
      const columns = canonicalColumns(k, native);
      const codes = resize(
        unpackCodes(packed, n, columns, codeBits(native.format)),
        columns,
        padded(k, native),
      );
      const scaleCodes = readScales(blockScales ?? new Uint8Array(), native.block.type);
      return dequantizeBlocks({ codes, scaleCodes, tensorScale: scales }, k, rule, spec.decode);
    },
    emit: (request) =>
      emitQuantized(request, {
        scheme: spec.name,
        native,
        activation: 'none',
        sharesTensorScale: spec.findTensorScale !== undefined,
      }),
  });
}

/** The scale a chunk is given. @throws BugError unless it is a finite float32 above 0 */
function requireScale({ tensorScale }: RowChunk): number | undefined {
  if (tensorScale === undefined) return undefined;
  const scale = Math.fround(tensorScale);
  if (Number.isFinite(scale) && scale > 0) return scale;
  throw new BugError(`${tensorScale} is no scale of a tensor`);
}

function toParts(
  { codes, scaleCodes, tensorScale }: BlockCodes,
  { rows, k }: { readonly rows: number; readonly k: number },
  native: BlockScheme['native'],
): ReturnType<QuantScheme['quantize']> {
  const columns = canonicalColumns(k, native);
  return {
    codes: packCodes(resize(codes, padded(k, native), columns), rows, columns, codeBits(native.format)),
    scales: tensorScale,
    blockScales: writeScales(scaleCodes, native.block.type),
  };
}

/** Columns in whole blocks. */
function padded(k: number, { block }: BlockScheme['native']): number {
  return Math.ceil(k / block.columns) * block.columns;
}

/** Rows of `from` codes cut or filled up with 0 to `to`. */
function resize(codes: Uint8Array, from: number, to: number): Uint8Array {
  const rows = codes.length / from;
  const resized = new Uint8Array(rows * to);
  for (let row = 0; row < rows; row++) {
    resized.set(codes.subarray(row * from, row * from + Math.min(from, to)), row * to);
  }
  return resized;
}

/** Scale codes to little-endian bytes. */
function writeScales(scaleCodes: Uint16Array, type: BlockScaleType): Uint8Array {
  const width = blockScaleBytes(type);
  return Uint8Array.from(
    { length: scaleCodes.length * width },
    (_, at) => (scaleCodes[Math.floor(at / width)] as number) >> (8 * (at % width)),
  );
}

function readScales(bytes: Uint8Array, type: BlockScaleType): Uint16Array {
  if (blockScaleBytes(type) === 1) return Uint16Array.from(bytes);
  return Uint16Array.from(
    { length: bytes.length / 2 },
    (_, at) => (bytes[2 * at] as number) | ((bytes[2 * at + 1] as number) << 8),
  );
}
