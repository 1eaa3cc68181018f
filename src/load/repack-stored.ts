import { BugError, UserError } from '../errors.js';
import type { StoredPart, StoredWeight, WeightSource } from '../graph/ir.js';
import { memberSlices } from '../quant/packed-layout.js';
import type { NativeAddon, RepackJob, RepackResult, StoredPartName } from '../runtime/addon.js';
import { unreadable } from './read-problems.js';

/** How a weight that is stored quantized gets into its final place. */
export interface RepackRequest {
  readonly source: WeightSource & { readonly stored: StoredWeight };
  readonly target: RepackJob['target'];
  readonly threads: number;
  readonly fdOf: (file: string) => number;
}

/** Files that a weight lies in: one, or those of its parts. */
export function filesOfSource({ file, stored }: WeightSource): readonly string[] {
  return stored === undefined ? [file] : partsOf(stored).map((part) => part.file);
}

/** Ranges of files that are read for a weight. */
export function rangesOfSource(
  source: WeightSource,
): readonly Pick<StoredPart, 'file' | 'offset' | 'byteLength'>[] {
  return source.stored === undefined ? [source] : partsOf(source.stored);
}

/**
 * Repacks a stored weight into panels.
 * @throws UserError `non_finite_weight` for NaN codes and scales that are not finite, `invalid_checkpoint` for a file
 *   that cannot be read and a zero point in a symmetric format; both name the tensor.
 */
export async function repackStored(addon: NativeAddon, request: RepackRequest): Promise<void> {
  const { source, target, threads, fdOf } = request;
  const { format, parts } = source.stored;
  const [n = 0, k = 0] = source.shape;
  const range = ({ file, offset }: StoredPart): { fd: number; offset: number } => ({
    fd: fdOf(file),
    offset,
  });
  const { codes, scales, blockScales, zeroPoints } = parts;
  const { layout, rowBytes, offsetBinary } = codes;
  const result = await addon.repackWeight({
    n,
    k,
    format: format.native.format,
    groupN: format.native.groupN,
    groupK: format.native.groupK,
    codes: { ...range(codes), layout, rowBytes, offsetBinary },
    scales: { ...range(scales), layout: scales.layout, type: scales.type, reciprocal: scales.reciprocal },
    ...(blockScales === undefined ? {} : { blockScales: range(blockScales) }),
    ...(zeroPoints === undefined
      ? {}
      : { zeroPoints: { ...range(zeroPoints), layout: zeroPoints.layout, minusOne: zeroPoints.minusOne } }),
    ...(format.columnOrder === undefined ? {} : { columnOrder: format.columnOrder }),
    target,
    threads,
  });
  if (result.status !== 'ok') throw describeProblem(source.stored, result);
}

/**
 * The float32 values [n, k] of a stored weight, to be quantized to another scheme: `dequantize` of its scheme. Takes the
 * memory of all of them and of the codes.
 * @throws UserError as `repackStored`
 */
export async function restoreStored(
  addon: NativeAddon,
  request: Omit<RepackRequest, 'target'>,
): Promise<Float32Array> {
  const { source } = request;
  const [n = 0, k = 0] = source.shape;
  const { native } = source.stored.format;
  const slice = memberSlices([n], k, native)[0];
  if (slice === undefined) throw new BugError(`${source.name} has no rows`);
  const target = {
    weight: new Uint8Array(slice.weightBytes),
    scales: new Float32Array(slice.scaleCount),
    ...(native.block === undefined ? {} : { blockScales: new Uint8Array(slice.blockScaleBytes) }),
    ...(native.asymmetric === true ? { zeroPoints: new Int8Array(slice.zeroPointCount) } : {}),
  };
  await repackStored(addon, { ...request, target });
  const { format, groupN, groupK, block } = native;
  const { columnOrder } = source.stored.format;
  const values = new Float32Array(n * k);
  await addon.restoreWeight({
    n,
    k,
    format,
    groupN,
    groupK,
    ...(block === undefined ? {} : { block }),
    ...(columnOrder === undefined ? {} : { columnOrder }),
    ...target,
    target: values,
    threads: request.threads,
  });
  return values;
}

function partsOf({ parts }: StoredWeight): readonly StoredPart[] {
  const { codes, scales, blockScales, zeroPoints } = parts;
  return [codes, scales, blockScales, zeroPoints].filter((part) => part !== undefined);
}

function partNamed({ parts }: StoredWeight, name: StoredPartName): StoredPart {
  const part = {
    codes: parts.codes,
    scales: parts.scales,
    block_scales: parts.blockScales,
    zero_points: parts.zeroPoints,
  }[name];
  if (part === undefined) throw new BugError(`the repacker speaks of ${name}, which the weight has not`);
  return part;
}

function describeProblem(stored: StoredWeight, result: Exclude<RepackResult, { status: 'ok' }>): UserError {
  switch (result.status) {
    case 'short_read': {
      const { name, file } = partNamed(stored, result.part);
      return unreadable(name, file, 'the file ended early');
    }
    case 'io_error': {
      const { name, file } = partNamed(stored, result.part);
      return unreadable(name, file, `the system reported error ${result.errno}`);
    }
    case 'invalid_code':
      return damaged(
        stored.parts.codes,
        `holds a NaN for row ${result.row}, column ${result.column} of the weight`,
      );
    case 'invalid_scale': {
      const what = result.part === 'scales' ? 'that is no finite number' : 'that is negative or NaN';
      return damaged(
        partNamed(stored, result.part),
        `holds a scale ${what} for row ${result.row}, group ${result.group} of the weight`,
      );
    }
    case 'zero_point':
      return new UserError(
        'invalid_checkpoint',
        `${partNamed(stored, 'zero_points').name} holds a zero point for row ${result.row}, group ${result.group} that is ` +
          `${Math.abs(result.zeroPoint)} ${result.zeroPoint < 0 ? 'below' : 'above'} the middle, though the ` +
          'quantization config says that the weights are symmetric.',
        {
          param: partNamed(stored, 'zero_points').name,
          suggestions: ['Fetch the config and the weights again: they are not of the same version.'],
        },
      );
  }
}

function damaged({ name }: StoredPart, what: string): UserError {
  return new UserError('non_finite_weight', `${name} ${what}.`, {
    param: name,
    suggestions: ['The checkpoint is damaged or was saved from a diverged run: get it again.'],
  });
}
