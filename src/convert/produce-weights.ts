import type { Graph, Initializer, QuantizedLayer, QuantizedPart, WeightSource } from '../graph/ir.js';
import { verifyUnchanged, type Checkpoint } from '../hub/checkpoint.js';
import { openWeightFile } from '../hub/weight-file.js';
import { isMapped, streamWeights, type LayerParts } from '../load/stream-weights.js';
import { unreadable } from '../load/read-problems.js';
import type { NativeAddon } from '../runtime/addon.js';
import { BufferPool } from './buffer-pool.js';

/** Layers in flight: one is read and quantized while the one before it is written. */
const CONCURRENCY = 2;
/** Piece in which a tensor that stays as stored is copied. */
const COPY_BYTES = 8 << 20;

export interface WeightSink {
  readonly addon: NativeAddon;
  readonly checkpoint: Pick<Checkpoint, 'files'>;
  readonly threads: number;
  readonly signal: AbortSignal;
  /**
   * Takes the next bytes of an initializer, from front to back; they are valid until the promise settles.
   * Initializers come in any order, several at a time.
   */
  readonly write: (initializer: Initializer, bytes: Uint8Array) => Promise<void>;
  /** Told of every quantized layer when its parts are complete, before they are written. */
  readonly inspect?: (layer: QuantizedLayer, parts: LayerParts) => Promise<void>;
}

/** Initializers that one pass over some tensors fills. */
interface Unit {
  readonly initializers: readonly Initializer[];
  readonly source: WeightSource;
}

/**
 * Produces every large initializer of a graph as `streamWeights` does, byte for byte, but hands each to a sink as soon
 * as it is complete: the memory taken is that of the largest layers, whatever the size of the model.
 * @throws UserError as `streamWeights`, and what the sink throws
 */
export async function produceWeights(graph: Graph, sink: WeightSink): Promise<void> {
  await verifyUnchanged(sink.checkpoint);
  const pool = new BufferPool(sink.addon);
  const units = [...listUnits(graph)].sort(
    (a, b) => a.source.file.localeCompare(b.source.file) || a.source.offset - b.source.offset,
  );
  let next = 0;
  let failure: { readonly error: unknown } | undefined;
  const work = async (): Promise<void> => {
    while (next < units.length && failure === undefined) {
      const unit = units[next++] as Unit;
      await produceUnit(graph, unit, sink, pool).catch((error: unknown) => (failure ??= { error }));
    }
  };
  await Promise.all(Array.from({ length: CONCURRENCY }, work));
  if (failure !== undefined) throw failure.error;
  await verifyUnchanged(sink.checkpoint);
}

function* listUnits(graph: Graph): Generator<Unit> {
  const layers = new Map<QuantizedLayer, Initializer[]>();
  for (const initializer of graph.initializers.values()) {
    const { data } = initializer;
    if (data.kind === 'weight') {
      yield { initializers: [initializer], source: data.members[0] as WeightSource };
    } else if (data.kind === 'external') {
      const { name, dataType, shape } = initializer;
      yield { initializers: [initializer], source: { name, dataType, shape, ...data } };
    } else if (data.kind === 'quantized') {
      layers.set(data.layer, [...(layers.get(data.layer) ?? []), initializer]);
    }
  }
  for (const [layer, initializers] of layers)
    yield { initializers, source: layer.members[0] as WeightSource };
}

async function produceUnit(graph: Graph, unit: Unit, sink: WeightSink, pool: BufferPool): Promise<void> {
  sink.signal.throwIfAborted();
  const { initializers, source } = unit;
  const [first] = initializers as readonly [Initializer];
  if (first.data.kind === 'external' || isMapped(first)) {
    await copyTensor(first, source, sink, pool);
    return;
  }
  const results = await streamWeights(
    { ...graph, initializers: new Map(initializers.map((each) => [each.name, each])) },
    {
      addon: { ...sink.addon, allocate: (byteLength) => pool.take(byteLength) },
      threads: sink.threads,
      open: (file) => openChecked(sink, file),
      onProgress: () => undefined,
      signal: sink.signal,
    },
  );
  if (first.data.kind === 'quantized' && sink.inspect !== undefined) {
    const parts = initializers.flatMap(({ data }, index): [QuantizedPart, ArrayBuffer][] => {
      const memory = results[index]?.memory;
      return data.kind === 'quantized' && memory !== undefined ? [[data.part, memory]] : [];
    });
    await sink.inspect(first.data.layer, Object.fromEntries(parts));
  }
  for (const [index, { memory, byteOffset, byteLength }] of results.entries()) {
    await sink.write(initializers[index] as Initializer, new Uint8Array(memory, byteOffset, byteLength));
    pool.giveBack(memory);
  }
}

/** Copies a tensor as it lies in its file. */
async function copyTensor(
  initializer: Initializer,
  source: WeightSource,
  sink: WeightSink,
  pool: BufferPool,
): Promise<void> {
  const handle = await openChecked(sink, source.file);
  const memory = pool.take(Math.min(COPY_BYTES, source.byteLength));
  try {
    let done = 0;
    while (done < source.byteLength) {
      sink.signal.throwIfAborted();
      const piece = new Uint8Array(memory, 0, Math.min(memory.byteLength, source.byteLength - done));
      const { bytesRead } = await handle.read(piece, 0, piece.byteLength, source.offset + done);
      if (bytesRead === 0) throw unreadable(source.name, source.file, 'the file ended early');
      await sink.write(initializer, piece.subarray(0, bytesRead));
      done += bytesRead;
    }
  } finally {
    pool.giveBack(memory);
    await handle.close();
  }
}

function openChecked(sink: WeightSink, file: string): ReturnType<typeof openWeightFile> {
  return openWeightFile(
    file,
    sink.checkpoint.files.find((identity) => identity.path === file),
  );
}
