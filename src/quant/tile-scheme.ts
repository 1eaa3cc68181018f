import { BugError } from '../errors.js';
import { floatBytes, isFloatType, widenFloats, FLOAT_TYPES } from './numerics/floats.js';
import type { FloatType } from './numerics/floats.js';
import { dequantizeTiles, quantizeTiles } from './numerics/tiles.js';
import { packedWeightBytes, scaleCount } from './packed-layout.js';
import { emitQuantized, QUANT_LINEAR_OP } from './quant-linear.js';
import type { ActivationRule } from './quant-linear.js';
import type { NativeFormat, QuantKey, QuantScheme, WeightTensor } from './scheme.js';

/** What distinguishes one symmetric scheme with one level of scales from another. */
export interface TileScheme extends Pick<QuantScheme, 'name' | 'aliases' | 'summary' | 'activation'> {
  readonly native: NativeFormat;
  readonly weight: Pick<QuantKey, 'element' | 'maxError'>;
  readonly activationRule: ActivationRule;
  readonly maxCode: number;
  readonly encode: (quotient: number) => number;
  /** Value of a code, 0..255. */
  readonly decode: (code: number) => number;
  /** One code a byte to the stored form; absent: they are the same. */
  readonly packing?: {
    pack(codes: Uint8Array, rows: number, k: number): Uint8Array;
    unpack(packed: Uint8Array, rows: number, k: number): Uint8Array;
  };
}

/** A scheme whose weights are `encode(w / scale)` with one scale for each tile of `native`. */
export function createTileScheme(spec: TileScheme): QuantScheme {
  const { native, packing } = spec;
  const tile = { rows: native.groupN as number, columns: native.groupK };
  return Object.freeze<QuantScheme>({
    name: spec.name,
    aliases: spec.aliases,
    summary: spec.summary,
    weight: {
      ...spec.weight,
      scaleType: 'float32',
      group: [tile.rows, tile.columns === 0 ? -1 : tile.columns],
      dynamic: false,
      symmetric: true,
    },
    activation: spec.activation,
    requires: { devices: ['cpu'], op: QUANT_LINEAR_OP },
    native,
    online: true,
    rowAlign: tile.rows,
    accepts: acceptsFloatMatrix,
    bytes: ({ shape }) => {
      const { n, k } = matrixShape(shape);
      const scaleBytes = Float32Array.BYTES_PER_ELEMENT * scaleCount([n], k, native);
      return packedWeightBytes([n], k, native.format) + scaleBytes;
    },
    quantize: (tensor, { firstRow, bytes }) => {
      const { n, k } = matrixShape(tensor.shape);
      const dataType = requireFloat(tensor);
      const rows = bytes.byteLength / (k * floatBytes(dataType));
      requireAligned(tensor, { firstRow, rows, n, align: tile.rows });
      const values = widenFloats(bytes, dataType);
      const result = quantizeTiles(
        { name: tensor.name, firstRow, rows, k, values },
        { ...tile, maxCode: spec.maxCode, encode: spec.encode },
      );
      return packing === undefined ? result : { ...result, codes: packing.pack(result.codes, rows, k) };
    },
    dequantize: ({ shape }, parts) => {
      const { n, k } = matrixShape(shape);
      const codes = packing === undefined ? parts.codes : packing.unpack(parts.codes, n, k);
      return dequantizeTiles({ codes, scales: parts.scales }, k, tile, spec.decode);
    },
    emit: (request) => emitQuantized(request, { scheme: spec.name, native, activation: spec.activationRule }),
  });
}

/** Every scheme of float matrices takes any n and k of at least 1. */
export function acceptsFloatMatrix({ dataType, shape }: WeightTensor): true | string {
  if (!isFloatType(dataType)) return `is stored as ${dataType}, not as ${FLOAT_TYPES.join(', ')}`;
  if (shape.length !== 2 || shape.some((size) => size < 1)) {
    return `has shape [${shape.join(', ')}], not [n, k]`;
  }
  return true;
}

function matrixShape(shape: readonly number[]): { readonly n: number; readonly k: number } {
  const [n, k] = shape;
  return { n: n as number, k: k as number };
}

function requireFloat({ name, dataType }: WeightTensor): FloatType {
  if (!isFloatType(dataType)) throw new BugError(`${name} is ${dataType} and cannot be quantized`);
  return dataType;
}

interface ChunkRows {
  readonly firstRow: number;
  readonly rows: number;
  readonly n: number;
  readonly align: number;
}

function requireAligned({ name }: WeightTensor, { firstRow, rows, n, align }: ChunkRows): void {
  const reachesEnd = firstRow + rows === n;
  const fits = Number.isInteger(rows) && rows > 0 && firstRow + rows <= n;
  if (!fits || firstRow % align !== 0 || (rows % align !== 0 && !reachesEnd)) {
    throw new BugError(
      `rows ${firstRow} + ${rows} of ${name} (${n} rows) are no chunk of ${align}-row tiles`,
    );
  }
}
