import { performance } from 'node:perf_hooks';
import { serializeModel } from '../graph/onnx.js';
import { openCheckpoint, type Checkpoint } from '../hub/checkpoint.js';
import { locateModel, type LocatedModel, type LocateOptions } from '../hub/locate.js';
import type { DecoderInfo } from '../models/architecture.js';
import { loadArchitecture } from '../models/registry.js';
import type { LayerReport } from '../quant/report.js';
import type { IsaName, KvCacheOptions } from '../runtime/addon.js';
import { chooseIsa, loadRuntime, type Runtime } from '../runtime/load-addon.js';
import { availableMemoryBytes } from '../runtime/machine.js';
import { kvBytesPerToken } from '../runtime/kv-layout.js';
import { createOnnxRunner, type OnnxRunner } from '../runtime/onnx-runner.js';
import { packWarmUpStep } from './warm-up.js';
import { planMemory, type MemoryPlan } from './memory-plan.js';
import type { Arithmetic } from './arithmetic.js';
import { CacheFolder } from './cache/cache-folder.js';
import type { CacheSettings, SavePace } from './cache/weight-cache.js';
import { isFdqFolder } from './folder/open-folder.js';
import { planFdqFolder } from './folder/plan-folder.js';
import { isGenaiFolder } from './genai/genai-config.js';
import { planGenaiFolder } from './genai/plan-genai.js';
import { planCheckpoint, type PlanOptions, type ServingPlan } from './plan.js';
import { findWeights } from './find-weights.js';

export type LoadPhase = 'locate' | 'plan' | 'quantize' | 'build' | 'warm_up';

/** Told how loading goes. */
export interface LoadObserver {
  phase(
    name: LoadPhase,
    state: 'start' | 'progress' | 'done',
    detail?: { readonly doneBytes?: number; readonly totalBytes?: number; readonly message?: string },
  ): void;
  warn(line: string): void;
  /** The model's folder is known; what does not need its weights can start. */
  located?(model: LocatedModel): void;
  /** Everything is decided, and no weight is read. */
  planned?(model: PlannedModel): void;
}

export interface LoadOptions extends PlanOptions {
  /** Folder or Hugging Face id, with an optional `@revision`. */
  readonly model: string;
  readonly locate?: LocateOptions;
  readonly threads: number;
  /** FDQ_ISA: forces kernels of one instruction set. */
  readonly isa?: string | undefined;
  readonly memory: {
    readonly utilization: number;
    readonly kvCacheBytes?: number;
    readonly numBlocks?: number;
    readonly maxModelLen?: number;
    readonly maxNumSeqs?: number;
    readonly maxBatchedTokens?: number;
  };
  /** Where quantized weights are kept for the next start; absent: nowhere. */
  readonly cache?: CacheSettings & {
    /** The user named the folder: one that cannot be used is an error before anything is read. */
    readonly isRequired: boolean;
  };
  readonly signal?: AbortSignal;
}

export interface LoadedModel {
  readonly runner: OnnxRunner;
  readonly checkpoint: Checkpoint;
  readonly decoder: DecoderInfo;
  /** Canonical name of what was asked for, e.g. `wint4:g128`; `none` when nothing was quantized. */
  readonly scheme: string;
  readonly layers: readonly LayerReport[];
  readonly weightBytes: number;
  readonly memory: MemoryPlan;
  readonly arithmetic: Arithmetic;
  readonly onnxruntimeVersion: string;
  readonly isa: IsaName;
  /** Wall time of each phase. */
  readonly seconds: Readonly<Record<LoadPhase, number>>;
  /** Writes the weights to the cache; present when that is worthwhile. Must end before the runner is closed. */
  readonly saveToCache?: (pace: SavePace) => Promise<string>;
}

/** All that is known before a weight is read. */
export interface PlannedModel extends ServingPlan {
  readonly memory: MemoryPlan;
  readonly kvCache: KvCacheOptions;
  readonly runtime: Runtime;
  readonly isa: IsaName;
}

/**
 * From a model reference to a runner: locate, plan, read + quantize, build, warm up.
 * Everything that headers and flags can tell fails before a weight is read.
 */
export async function loadModel(options: LoadOptions, observer: LoadObserver): Promise<LoadedModel> {
  const clock = new PhaseClock(observer);
  // Not when the weights are ready to be kept: whoever named the folder is not told by a warning after minutes.
  if (options.cache?.isRequired === true) await CacheFolder.probe(options.cache.dir);
  const located = await clock.run('locate', async () => {
    const located = await locateModel(options.model, {
      onProgress: ({ file, bytesDone, bytesTotal }) =>
        observer.phase('locate', 'progress', { doneBytes: bytesDone, totalBytes: bytesTotal, message: file }),
      checkConfig: async (config) => {
        (await loadArchitecture(config)).parseConfig(config);
      },
      ...options.locate,
    });
    observer.located?.(located);
    return located;
  });
  const planned = await clock.run('plan', async () => planLocated(located, options, observer));
  observer.planned?.(planned);
  const { initializers, save } = await clock.run('quantize', () => findWeights(planned, options, observer));
  const runner = await clock.run('build', () => {
    const { memory } = planned;
    return createOnnxRunner({
      runtime: planned.runtime,
      model: serializeModel(planned.graph),
      initializers,
      kvCache: planned.kvCache,
      threads: options.threads,
      isa: planned.isa,
      vocabSize: planned.decoder.vocabSize,
      maxModelLen: memory.maxModelLen,
      maxLogitRows: memory.maxLogitRows,
      maxBatchedTokens: memory.maxBatchedTokens,
    });
  });
  try {
    await clock.run('warm_up', () => runner.logits(packWarmUpStep()));
    options.signal?.throwIfAborted();
  } catch (error) {
    await runner.close();
    throw error;
  }
  return {
    ...planned,
    runner,
    onnxruntimeVersion: planned.runtime.onnxruntime.version,
    seconds: clock.seconds,
    ...(save === undefined ? {} : { saveToCache: save }),
  };
}

/**
 * Decides everything about whatever the folder holds, a model of `fdq convert`, one of onnxruntime-genai or a
 * checkpoint; no weight is read.
 */
export async function planLocated(
  located: LocatedModel,
  options: LoadOptions,
  observer: LoadObserver,
): Promise<PlannedModel> {
  const planFolder = (await isFdqFolder(located.dir))
    ? planFdqFolder
    : (await isGenaiFolder(located.dir))
      ? planGenaiFolder
      : undefined;
  if (planFolder === undefined) return planModel(await openCheckpoint(located), options, observer);
  const runtime = loadRuntime();
  const isa = chooseIsa(runtime.addon, options.isa);
  return fitMachine(await planFolder(located, options, isa), { runtime, isa, options, observer });
}

/** Decides everything about a model from its headers. */
export async function planModel(
  checkpoint: Checkpoint,
  options: LoadOptions,
  observer: LoadObserver,
): Promise<PlannedModel> {
  const runtime = loadRuntime();
  const isa = chooseIsa(runtime.addon, options.isa);
  return fitMachine(await planCheckpoint(checkpoint, options, isa), { runtime, isa, options, observer });
}

/** Divides the machine's memory for a plan. */
function fitMachine(
  plan: ServingPlan,
  machine: {
    readonly runtime: Runtime;
    readonly isa: IsaName;
    readonly options: LoadOptions;
    readonly observer: LoadObserver;
  },
): PlannedModel {
  const { runtime, isa, options, observer } = machine;
  for (const warning of plan.warnings) observer.warn(warning);
  const { arithmetic, weightBytes, decoder } = plan;
  const memory = planMemory({
    availableBytes: availableMemoryBytes(),
    weightBytes,
    kvBytesPerToken: kvBytesPerToken(decoder, arithmetic.kv),
    vocabSize: decoder.vocabSize,
    modelMaxLen: decoder.maxPositions,
    ...options.memory,
  });
  const { numLayers, numKvHeads, headDim } = decoder;
  const kvCache: KvCacheOptions = {
    dataType: arithmetic.kv,
    numLayers,
    numBlocks: memory.numBlocks,
    numKvHeads,
    headDim,
    byteLength: memory.kvBytes,
  };
  return { ...plan, memory, kvCache, runtime, isa };
}

/** Times phases and tells the observer. */
class PhaseClock {
  readonly seconds: Record<LoadPhase, number> = { locate: 0, plan: 0, quantize: 0, build: 0, warm_up: 0 };
  readonly #observer: LoadObserver;

  constructor(observer: LoadObserver) {
    this.#observer = observer;
  }

  async run<T>(name: LoadPhase, work: () => Promise<T>): Promise<T> {
    const start = performance.now();
    this.#observer.phase(name, 'start');
    const result = await work();
    this.seconds[name] = (performance.now() - start) / 1000;
    this.#observer.phase(name, 'done');
    return result;
  }
}
