import { BugError } from '../errors.js';
import type { WeightSource } from '../graph/ir.js';
import type { MagnitudeJob, NativeAddon, QuantizeJob } from '../runtime/addon.js';
import { checkResult, floatType } from './read-problems.js';
import { readTransposed } from './read-transposed.js';
import { restoreStored } from './repack-stored.js';

export interface FloatReader {
  readonly addon: NativeAddon;
  readonly threads: number;
  /** The descriptor of an open file. */
  readonly fdOf: (file: string) => number;
  readonly signal?: AbortSignal | undefined;
}

/** Where the native quantizer finds a matrix [n, k] of floats. */
export type FloatMatrix = Pick<QuantizeJob, 'source' | 'dataType' | 'n' | 'k'>;

/**
 * A weight as the quantizer reads it: from its file, or from memory where the file has it transposed, or quantized to
 * something else that it stands for.
 * @throws UserError as `repackStored`; `invalid_checkpoint` when the file cannot be read
 */
export async function openFloats(source: WeightSource, reader: FloatReader): Promise<FloatMatrix> {
  const { addon, fdOf } = reader;
  const [n = 0, k = 0] = source.shape;
  const { stored } = source;
  if (stored !== undefined) {
    const floats = await restoreStored(addon, { ...reader, source: { ...source, stored } });
    return { n, k, dataType: 'float32', source: { bytes: new Uint8Array(floats.buffer) } };
  }
  const dataType = floatType(source);
  if (source.transposed !== true) {
    return { n, k, dataType, source: { fd: fdOf(source.file), offset: source.offset } };
  }
  const bytes = new Uint8Array(source.byteLength);
  await readTransposed(addon, source, fdOf(source.file), bytes);
  return { n, k, dataType, source: { bytes } };
}

/**
 * The largest magnitude of a weight, which is read once for it.
 * @throws UserError `non_finite_weight` naming tensor, row and column; as `openFloats`
 */
export async function measureMagnitude(source: WeightSource, reader: FloatReader): Promise<number> {
  const { addon, threads, signal } = reader;
  signal?.throwIfAborted();
  return findMagnitude(addon, source, { ...(await openFloats(source, reader)), threads });
}

/**
 * The same of a matrix that is open.
 * @throws UserError `non_finite_weight` naming tensor, row and column; `invalid_checkpoint`
 */
export async function findMagnitude(
  addon: NativeAddon,
  source: WeightSource,
  matrix: MagnitudeJob,
): Promise<number> {
  const found = await addon.measureMagnitude(matrix);
  checkResult(source, found);
  if (found.status !== 'ok') throw new BugError(`${source.name} was not measured`);
  return found.largest;
}
