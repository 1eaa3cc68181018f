import { inspectModel } from '../../inspect/inspect.js';
import type { QuantizationFlags } from '../../load/apply-quantization.js';
import { toMetric } from '../summarize.js';
import type { Metric } from '../report.js';
import type { QualityOptions } from './options.js';

/**
 * What quantizing loses of the weights, before any of them is multiplied.
 * @param onProgress bytes measured so far
 * @returns none for a model whose layers are all left as they are
 * @throws UserError as `inspectModel`
 */
export async function measureLayers(
  options: QualityOptions,
  scheme: QuantizationFlags,
  onProgress: (doneBytes: number, totalBytes: number) => void,
  signal: AbortSignal,
): Promise<readonly Metric[]> {
  const { model, locate, dtype, isa, threads, utilization } = options;
  const { report } = await inspectModel({
    model,
    locate,
    quantization: scheme,
    dtype,
    isa,
    memory: { threads, utilization },
    measure: true,
    onProgress,
    signal,
  });
  const { error } = report.totals;
  const ratios = report.layers.flatMap((layer) => (layer.error === null ? [] : [layer.error.sqnrDb]));
  const worst = Math.min(...ratios);
  return [
    ...(error === null ? [] : [toMetric('layer_frobenius', [error.frobenius])]),
    // Nothing lost is infinitely many decibels.
    ...(Number.isFinite(worst) ? [toMetric('layer_sqnr_min', [worst])] : []),
  ];
}
