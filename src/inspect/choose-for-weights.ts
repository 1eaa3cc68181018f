import { verifyUnchanged } from '../hub/checkpoint.js';
import { openWeightFile } from '../hub/weight-file.js';
import type { Graph } from '../graph/ir.js';
import type { WeightFiles } from '../load/plan.js';
import { WeightMeter } from '../load/weight-meter.js';
import type { NativeAddon } from '../runtime/addon.js';
import { chooseAutomatically, type AutoRequest, type AutoResult } from './auto.js';

/** A meter over weight files as they were when their headers were checked. */
export function meterOf({ files, inline }: WeightFiles, addon: NativeAddon, threads: number): WeightMeter {
  return new WeightMeter({
    addon,
    threads,
    open: (file) =>
      openWeightFile(
        file,
        files.find((identity) => identity.path === file),
      ),
    ...(inline === undefined ? {} : { inline }),
  });
}

/** `chooseAutomatically` for a model whose float graph is built; reads every weight once for each candidate. */
export async function chooseForWeights(
  weights: WeightFiles,
  graph: Graph,
  {
    addon,
    threads,
    ...request
  }: Omit<AutoRequest, 'graph' | 'meter'> & { readonly addon: NativeAddon; readonly threads: number },
): Promise<AutoResult> {
  const meter = meterOf(weights, addon, threads);
  try {
    const result = await chooseAutomatically({ ...request, graph, meter });
    await verifyUnchanged(weights);
    return result;
  } finally {
    await meter.close();
  }
}
