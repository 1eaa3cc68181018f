import { verifyUnchanged, type Checkpoint } from '../hub/checkpoint.js';
import { openWeightFile } from '../hub/weight-file.js';
import type { Graph } from '../graph/ir.js';
import type { NativeAddon } from '../runtime/addon.js';
import { chooseAutomatically, type AutoRequest, type AutoResult } from './auto.js';
import { WeightMeter } from '../load/weight-meter.js';

/** A meter over the weight files of a checkpoint, as they were when their headers were checked. */
export function meterOf(checkpoint: Checkpoint, addon: NativeAddon, threads: number): WeightMeter {
  return new WeightMeter({
    addon,
    threads,
    open: (file) =>
      openWeightFile(
        file,
        checkpoint.files.find((identity) => identity.path === file),
      ),
  });
}

/** `chooseAutomatically` for a checkpoint whose float graph is built; reads every weight once for each candidate. */
export async function chooseForCheckpoint(
  checkpoint: Checkpoint,
  graph: Graph,
  {
    addon,
    threads,
    ...request
  }: Omit<AutoRequest, 'graph' | 'meter'> & { readonly addon: NativeAddon; readonly threads: number },
): Promise<AutoResult> {
  const meter = meterOf(checkpoint, addon, threads);
  try {
    const result = await chooseAutomatically({ ...request, graph, meter });
    await verifyUnchanged(checkpoint);
    return result;
  } finally {
    await meter.close();
  }
}
