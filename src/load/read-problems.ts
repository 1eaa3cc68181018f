import { BugError, UserError } from '../errors.js';
import type { WeightSource } from '../graph/ir.js';
import type { QuantizeResult } from '../runtime/addon.js';

/**
 * @throws UserError `non_finite_weight` naming tensor, row and column; `invalid_checkpoint` when the file cannot be
 *   read
 */
export function checkResult(source: WeightSource, result: QuantizeResult): void {
  if (result.status === 'ok') return;
  if (result.status === 'non_finite') {
    throw new UserError(
      'non_finite_weight',
      `${source.name} holds a NaN or infinity at row ${result.row}, column ${result.column}.`,
      {
        param: source.name,
        suggestions: ['The checkpoint is damaged or was saved from a diverged run: get it again.'],
      },
    );
  }
  const why =
    result.status === 'short_read' ? 'the file ended early' : `the system reported error ${result.errno}`;
  throw unreadable(source.name, source.file, why);
}

/** A weight that cannot be had, and why. */
export function unreadable(name: string, file: string, why: string, cause?: unknown): UserError {
  return new UserError('invalid_checkpoint', `Could not read ${name} from ${file}: ${why}.`, {
    param: name,
    suggestions: ['Check that the file is complete and was not replaced while it was being read.'],
    cause,
  });
}

/** The type of a weight that is read to be quantized or widened. */
export function floatType(source: WeightSource): 'float32' | 'float16' | 'bfloat16' {
  const { dataType } = source;
  if (dataType === 'float32' || dataType === 'float16' || dataType === 'bfloat16') return dataType;
  throw new BugError(`${source.name} has data type ${dataType}, which is not a float`);
}
