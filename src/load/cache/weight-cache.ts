import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { setImmediate, setTimeout } from 'node:timers/promises';
import type { Graph, Initializer } from '../../graph/ir.js';
import type { Checkpoint, FileIdentity } from '../../hub/checkpoint.js';
import type { NativeInitializer } from '../../runtime/addon.js';
import { FDQ_VERSION } from '../../version.js';
import {
  FORMAT_VERSION,
  LAYOUT_VERSION,
  ROUNDING_CONTRACT,
  serializeManifest,
  type CacheManifest,
} from '../folder/manifest.js';
import { mapTensor } from '../folder/open-folder.js';
import { PRIVATE_MODES, StagedFolder } from '../folder/staged-folder.js';
import { findDamagedTensor } from '../folder/verify-tensors.js';
import { MANIFEST_FILE, WEIGHTS_FILE } from '../../hub/layout.js';
import { layOutTensors, WeightsFile } from '../folder/weights-file.js';
import { cachedInitializers, cacheKey } from './cache-key.js';
import { CacheFolder, type OpenedEntry } from './cache-folder.js';

export interface CacheSettings {
  /** Cache folder of fdq. */
  readonly dir: string;
  /** Of all entries together. */
  readonly maxBytes: number;
  /** Loading that spent less on its weights is not worth an entry. */
  readonly minSeconds: number;
}

/** Gives way to requests while an entry is written. */
export interface SavePace {
  readonly isBusy: () => boolean;
  readonly signal: AbortSignal;
}

/** Pause after every MiB while requests are answered: writing then takes a few percent of one core. */
const BUSY_PAUSE_MS = 20;

/** Weights of one graph in the cache. */
export interface CachedWeights {
  /** The graph with every weight that took work mapped from the entry. */
  readonly graph: Graph;
  readonly weights: FileIdentity;
}

/** The cache of one planned model. */
export class WeightCache {
  /** Absent: the folder does not exist yet. */
  readonly #folder: CacheFolder | undefined;
  readonly #settings: CacheSettings;
  readonly #checkpoint: Checkpoint;
  readonly #graph: Graph;
  readonly #key: string;

  private constructor(
    folder: CacheFolder | undefined,
    settings: CacheSettings,
    model: { readonly checkpoint: Checkpoint; readonly graph: Graph },
    key: string,
  ) {
    this.#folder = folder;
    this.#settings = settings;
    this.#checkpoint = model.checkpoint;
    this.#graph = model.graph;
    this.#key = key;
  }

  /** @throws UserError `usage` for a folder that cannot be trusted */
  static async open(
    settings: CacheSettings,
    model: { readonly checkpoint: Checkpoint; readonly graph: Graph },
  ): Promise<WeightCache> {
    const folder = await CacheFolder.find(settings.dir);
    return new WeightCache(folder, settings, model, await cacheKey(model.checkpoint, model.graph));
  }

  /**
   * The model's weights, every byte compared with its digest; undefined when there are none. A damaged entry is
   * removed and never served.
   */
  async find(options: {
    readonly threads: number;
    readonly signal?: AbortSignal | undefined;
    readonly warn: (line: string) => void;
  }): Promise<CachedWeights | undefined> {
    const folder = this.#folder;
    if (folder === undefined || cachedInitializers(this.#graph).length === 0) return undefined;
    try {
      const entry = await folder.find(this.#key);
      if (entry === undefined) return undefined;
      const found = await this.#use(entry, options);
      await folder.touch(this.#key);
      return found;
    } catch (error) {
      options.signal?.throwIfAborted();
      const reason = error instanceof Error ? error.message : String(error);
      options.warn(`Quantized weights in the cache are not used and quantized again: ${reason}`);
      await folder.remove(this.#key).catch(() => undefined);
      return undefined;
    }
  }

  /** Whether weights that took so long to produce are worth keeping. */
  isWorthwhile(seconds: number): boolean {
    return seconds >= this.#settings.minSeconds && cachedInitializers(this.#graph).length > 0;
  }

  /**
   * Writes the weights of a running model as an entry. Another process that writes the same one at the same time does
   * no harm: the first to finish wins.
   * @returns what came of it, as a sentence for the user
   * @throws UserError `write_failed`; the signal's reason
   */
  async save(initializers: readonly NativeInitializer[], pace: SavePace): Promise<string> {
    const cached = cachedInitializers(this.#graph);
    const layout = layOutTensors(cached);
    const folder = await CacheFolder.create(this.#settings.dir);
    if (!(await folder.makeRoom(layout.bytes, this.#settings.maxBytes))) {
      return `The quantized weights (${layout.bytes} bytes) do not fit into the cache.`;
    }
    const staged = await StagedFolder.create(folder.entryDir(this.#key), PRIVATE_MODES);
    try {
      const memory = new Map(initializers.map((initializer) => [initializer.name, initializer]));
      const file = await WeightsFile.create(path.join(staged.dir, WEIGHTS_FILE), layout, PRIVATE_MODES.file);
      try {
        for (const { name } of cached) await file.write(name, bytesOf(memory, name), () => giveWay(pace));
        const manifest = this.#manifest({ bytes: layout.bytes, tensors: file.finish() });
        await writeFile(path.join(staged.dir, MANIFEST_FILE), serializeManifest(manifest), {
          mode: PRIVATE_MODES.file,
        });
      } finally {
        await file.close();
      }
      await staged.publish({ replace: false });
    } catch (error) {
      await staged.discard();
      throw error;
    }
    return `Kept the quantized weights for the next start in ${folder.entryDir(this.#key)}.`;
  }

  async #use(
    { manifest, weights }: OpenedEntry,
    options: { readonly threads: number; readonly signal?: AbortSignal | undefined },
  ): Promise<CachedWeights> {
    const tensors = new Map(manifest.weights.tensors.map((tensor) => [tensor.name, tensor]));
    const initializers = new Map<string, Initializer>(this.#graph.initializers);
    for (const { name, dataType, shape } of cachedInitializers(this.#graph)) {
      const tensor = tensors.get(name);
      if (tensor?.dataType !== dataType || tensor.shape.join() !== shape.join()) {
        throw new Error(`it lacks ${name}.`);
      }
      initializers.set(name, mapTensor(tensor, weights.path));
    }
    const damaged = await findDamagedTensor(weights, manifest.weights.tensors, options);
    if (damaged !== undefined) throw new Error(`the bytes of ${damaged} have changed.`);
    return { graph: { ...this.#graph, initializers }, weights };
  }

  #manifest(weights: Omit<CacheManifest['weights'], 'file'>): CacheManifest {
    return {
      kind: 'cache',
      formatVersion: FORMAT_VERSION,
      fdqVersion: FDQ_VERSION,
      layoutVersion: LAYOUT_VERSION,
      roundingContract: ROUNDING_CONTRACT,
      key: this.#key,
      model: this.#checkpoint.reference,
      weights: { file: WEIGHTS_FILE, ...weights },
    };
  }
}

function bytesOf(memory: ReadonlyMap<string, NativeInitializer>, name: string): Uint8Array {
  const { memory: buffer, byteOffset, byteLength } = memory.get(name) as NativeInitializer;
  return new Uint8Array(buffer, byteOffset, byteLength);
}

async function giveWay({ isBusy, signal }: SavePace): Promise<void> {
  signal.throwIfAborted();
  if (isBusy()) await setTimeout(BUSY_PAUSE_MS, undefined, { signal });
  else await setImmediate();
}
