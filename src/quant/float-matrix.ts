import { BugError } from '../errors.js';
import { floatBytes, isFloatType, widenFloats, FLOAT_TYPES } from './numerics/floats.js';
import type { FloatType } from './numerics/floats.js';
import type { Rows } from './numerics/tiles.js';
import type { RowChunk, WeightTensor } from './scheme.js';

/** Every scheme of float matrices takes any n and k of at least 1. */
export function acceptsFloatMatrix({ dataType, shape }: WeightTensor): true | string {
  if (!isFloatType(dataType)) return `is stored as ${dataType}, not as ${FLOAT_TYPES.join(', ')}`;
  if (shape.length !== 2 || shape.some((size) => size < 1)) {
    return `has shape [${shape.join(', ')}], not [n, k]`;
  }
  return true;
}

export function matrixShape(shape: readonly number[]): { readonly n: number; readonly k: number } {
  const [n, k] = shape;
  return { n: n as number, k: k as number };
}

/** The type of a weight that `acceptsFloatMatrix`. */
export function requireFloat({
  name = 'a weight',
  dataType,
}: Partial<WeightTensor> & Pick<WeightTensor, 'dataType'>): FloatType {
  if (!isFloatType(dataType)) throw new BugError(`${name} is ${dataType} and no float matrix`);
  return dataType;
}

/**
 * The rows of a chunk, widened to float32.
 * @param align the scheme's `rowAlign`
 */
export function readRows(tensor: WeightTensor, { firstRow, bytes }: RowChunk, align: number): Rows {
  const { n, k } = matrixShape(tensor.shape);
  const dataType = requireFloat(tensor);
  const rows = bytes.byteLength / (k * floatBytes(dataType));
  requireAligned(tensor, { firstRow, rows, n, align });
  return { name: tensor.name, firstRow, rows, k, values: widenFloats(bytes, dataType) };
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
