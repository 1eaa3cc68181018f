import { toLayerError, type ErrorSums } from '../load/weight-meter.js';
import { precisionName } from '../quant/precision.js';
import type { LayerReport } from '../quant/report.js';
import { formatOfScheme } from '../quant/stored-scheme.js';
import type { LayerRow } from './report.js';

/**
 * A layer of a plan as the report shows it.
 * @param known.errors by tensor name; undefined: not measured
 */
export function toLayerRow(
  layer: LayerReport,
  known: Pick<LayerRow, 'bytesAfter' | 'kernel'> & {
    readonly errors: ReadonlyMap<string, ErrorSums> | undefined;
  },
): LayerRow {
  const sums = layer.scheme === 'none' ? undefined : known.errors?.get(layer.tensor);
  return {
    name: layer.name,
    tensor: layer.tensor,
    kind: layer.kind ?? 'linear',
    shape: layer.shape,
    storedType: layer.storedType,
    scheme: layer.scheme,
    precision: precisionName(formatOfScheme(layer.scheme)),
    bytesBefore: layer.bytesBefore,
    bytesAfter: known.bytesAfter,
    rule: layer.reason,
    kernel: known.kernel,
    error: sums === undefined ? null : toLayerError(sums),
  };
}
