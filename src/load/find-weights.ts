import { performance } from 'node:perf_hooks';
import { verifyUnchanged, type Checkpoint } from '../hub/checkpoint.js';
import { openWeightFile } from '../hub/weight-file.js';
import type { NativeInitializer } from '../runtime/addon.js';
import { cachedInitializers } from './cache/cache-key.js';
import { WeightCache } from './cache/weight-cache.js';
import type { LoadedModel, LoadObserver, LoadOptions, PlannedModel } from './load-model.js';
import { streamedBytes, streamWeights } from './stream-weights.js';

interface FoundWeights {
  readonly initializers: readonly NativeInitializer[];
  readonly save?: LoadedModel['saveToCache'];
}

/** Weights from the cache where it has them, else from the checkpoint. */
export async function findWeights(
  planned: PlannedModel,
  options: LoadOptions,
  observer: LoadObserver,
): Promise<FoundWeights> {
  const start = performance.now();
  const cache = await openCache(planned, options, observer);
  const { threads, signal } = options;
  const cached = await cache?.find({ threads, signal, warn: (line) => observer.warn(line) });
  if (cached !== undefined) {
    const files = [...planned.checkpoint.files, cached.weights];
    const message = 'from the cache';
    observer.phase('quantize', 'progress', { message });
    return { initializers: await readWeights({ ...planned, graph: cached.graph, files }, options, observer) };
  }
  const { files } = planned.checkpoint;
  const initializers = await readWeights({ ...planned, files }, options, observer);
  const seconds = (performance.now() - start) / 1000;
  if (cache?.isWorthwhile(seconds) !== true) return { initializers };
  return { initializers, save: (pace) => cache.save(initializers, pace) };
}

/** The cache, unless it is switched off or cannot be used; only a folder that was asked for is an error. */
async function openCache(
  { checkpoint, graph }: PlannedModel,
  { cache }: LoadOptions,
  observer: LoadObserver,
): Promise<WeightCache | undefined> {
  if (cache === undefined || cachedInitializers(graph).length === 0) return undefined;
  try {
    return await WeightCache.open(cache, { checkpoint, graph });
  } catch (error) {
    if (cache.isRequired) throw error;
    observer.warn(`No cache of quantized weights: ${error instanceof Error ? error.message : String(error)}`);
    return undefined;
  }
}

async function readWeights(
  planned: Pick<PlannedModel, 'graph' | 'runtime'> & Pick<Checkpoint, 'files'>,
  options: LoadOptions,
  observer: LoadObserver,
): Promise<readonly NativeInitializer[]> {
  const totalBytes = streamedBytes(planned.graph);
  const { files, runtime } = planned;
  await verifyUnchanged(planned);
  const initializers = await streamWeights(planned.graph, {
    addon: runtime.addon,
    threads: options.threads,
    open: (file) =>
      openWeightFile(
        file,
        files.find((identity) => identity.path === file),
      ),
    onProgress: (doneBytes) => observer.phase('quantize', 'progress', { doneBytes, totalBytes }),
    signal: options.signal,
  });
  // What is mapped was not read yet: a file cut short meanwhile would be a SIGBUS at the first step instead of this
  // message. From here on a mapped file must not change in place, as with any server that maps its weights.
  await verifyUnchanged(planned);
  return initializers;
}
