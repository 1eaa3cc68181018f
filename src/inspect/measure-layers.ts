import { BugError } from '../errors.js';
import type { Graph } from '../graph/ir.js';
import { verifyUnchanged } from '../hub/checkpoint.js';
import type { WeightFiles } from '../load/plan.js';
import type { ErrorSums } from '../load/weight-meter.js';
import { resolveScheme } from '../quant/registry.js';
import type { LayerReport } from '../quant/report.js';
import { loadRuntime } from '../runtime/load-addon.js';
import { meterOf } from './choose-for-weights.js';
import { findFused, findSources } from './free-layers.js';
import type { InspectOptions } from './inspect.js';

/** Layers with their schemes, the float graph they are of and its weights. */
export interface MeasuredModel {
  readonly layers: readonly LayerReport[];
  readonly floatGraph: Graph;
  readonly weights: WeightFiles;
}

/** Measures every layer that is quantized, each tensor once; those that are stored quantized have no original. */
export async function measureLayers(
  { layers: all, floatGraph, weights }: MeasuredModel,
  { onProgress, signal, memory }: Pick<InspectOptions, 'onProgress' | 'signal' | 'memory'>,
): Promise<ReadonlyMap<string, ErrorSums>> {
  const sources = findSources(floatGraph);
  const fused = findFused(floatGraph);
  const quantized = all.filter(
    ({ scheme, tensor }) => scheme !== 'none' && sources.get(tensor)?.stored === undefined,
  );
  const layers = new Map(quantized.map((layer) => [layer.tensor, layer]));
  const totalBytes = [...layers.values()].reduce((sum, { bytesBefore }) => sum + bytesBefore, 0);
  const errors = new Map<string, ErrorSums>();
  const meter = meterOf(weights, loadRuntime().addon, memory.threads);
  try {
    let doneBytes = 0;
    for (const [tensor, { scheme, bytesBefore }] of layers) {
      signal?.throwIfAborted();
      const source = sources.get(tensor);
      if (source === undefined) throw new BugError(`${tensor} is no weight of the graph`);
      errors.set(tensor, await meter.measure(source, resolveScheme(scheme), fused.get(tensor)));
      doneBytes += bytesBefore;
      onProgress?.(doneBytes, totalBytes);
    }
    await verifyUnchanged(weights);
    return errors;
  } finally {
    await meter.close();
  }
}
