import type { FileHandle } from 'node:fs/promises';
import { BugError, UserError } from '../errors.js';
import { byteLengthOf, elementTypeOf } from '../graph/data-types.js';
import type { DataType, Graph, Initializer, QuantizedLayer, WeightSource } from '../graph/ir.js';
import { memberSlices } from '../quant/packed-layout.js';
import { resolveScheme } from '../quant/registry.js';
import type { NativeAddon, NativeInitializer, QuantizeResult } from '../runtime/addon.js';

/** Tensors in flight: one at work, one whose hand-over to JS overlaps it. */
const CONCURRENCY = 2;
/** Tensors the kernel is asked to read ahead of the one at work. */
const READ_AHEAD = 4;

export interface WeightStream {
  readonly addon: NativeAddon;
  readonly threads: number;
  /** Opens a weight file whose header was checked; the stream closes it. */
  readonly open: (file: string) => Promise<FileHandle>;
  /** Checkpoint bytes dealt with so far, of `streamedBytes(graph)`. */
  readonly onProgress: (bytesDone: number) => void;
  readonly signal?: AbortSignal | undefined;
}

/** One tensor to be read into its final place. */
interface Task {
  readonly source: WeightSource;
  readonly run: (fd: number) => Promise<QuantizeResult>;
}

type LayerParts = Partial<Record<'weight' | 'scales', ArrayBuffer>>;
type WeightData = Extract<Initializer['data'], { kind: 'weight' }>;

/**
 * Produces every large initializer of a graph: maps what is used as stored, widens what the graph wants as
 * float32, and quantizes the rest straight into its final buffer, in the order of the files.
 * @throws UserError `non_finite_weight` naming tensor, row and column; `invalid_checkpoint` when a file ends
 *   early or cannot be read.
 */
export async function streamWeights(
  graph: Graph,
  stream: WeightStream,
): Promise<readonly NativeInitializer[]> {
  const result: NativeInitializer[] = [];
  const tasks: Task[] = [];
  const layers = new Map<QuantizedLayer, LayerParts>();
  for (const initializer of graph.initializers.values()) {
    if (initializer.data.kind === 'inline') continue;
    const memory = placeInitializer(initializer, stream.addon);
    result.push(describe(initializer, memory));
    const { data } = initializer;
    if (data.kind === 'quantized') {
      layers.set(data.layer, { ...layers.get(data.layer), [data.part]: memory });
    } else if (data.kind === 'weight' && !isMapped(initializer.dataType, data)) {
      tasks.push(...readTasks(stream.addon, initializer.dataType, data, memory));
    }
  }
  for (const [layer, parts] of layers) tasks.push(...quantizeTasks(stream, layer, parts));
  await runTasks(tasks, stream);
  return result;
}

/** Checkpoint bytes that are read rather than mapped. */
export function streamedBytes(graph: Graph): number {
  const members = new Set<WeightSource>();
  for (const { dataType, data } of graph.initializers.values()) {
    if (data.kind === 'quantized') data.layer.members.forEach((member) => members.add(member));
    if (data.kind === 'weight' && !isMapped(dataType, data))
      data.members.forEach((member) => members.add(member));
  }
  return [...members].reduce((sum, member) => sum + member.byteLength, 0);
}

/** One tensor used as it lies in its file is mapped, never copied. */
function isMapped(dataType: DataType, data: WeightData): boolean {
  return data.members.length === 1 && data.members[0]?.dataType === dataType && (data.addend ?? 0) === 0;
}

function placeInitializer(initializer: Initializer, addon: NativeAddon): ArrayBuffer {
  const { data, dataType, shape } = initializer;
  if (data.kind === 'external') return addon.mapFile(data.file, data.offset, data.byteLength);
  const [only] = data.kind === 'weight' ? data.members : [];
  if (data.kind === 'weight' && only !== undefined && isMapped(dataType, data)) {
    return addon.mapFile(only.file, only.offset, only.byteLength);
  }
  return addon.allocate(byteLengthOf(dataType, shape));
}

function describe(initializer: Initializer, memory: ArrayBuffer): NativeInitializer {
  return {
    name: initializer.name,
    elementType: elementTypeOf(initializer.dataType),
    shape: initializer.shape,
    memory,
    byteOffset: 0,
    byteLength: memory.byteLength,
  };
}

function* readTasks(
  addon: NativeAddon,
  dataType: DataType,
  data: WeightData,
  memory: ArrayBuffer,
): Generator<Task> {
  let offset = 0;
  for (const source of data.members) {
    const widen = source.dataType === dataType && (data.addend ?? 0) === 0 ? undefined : floatType(source);
    const byteLength = byteLengthOf(dataType, source.shape);
    const target = new Uint8Array(memory, offset, byteLength);
    offset += byteLength;
    const range = { offset: source.offset, byteLength: source.byteLength, target };
    yield {
      source,
      run: (fd) =>
        addon.read(
          widen === undefined
            ? { fd, ...range }
            : { fd, ...range, widen: { from: widen, addend: data.addend ?? 0 } },
        ),
    };
  }
}

function* quantizeTasks(stream: WeightStream, layer: QuantizedLayer, parts: LayerParts): Generator<Task> {
  const { native } = resolveScheme(layer.scheme);
  const { weight, scales } = parts;
  if (native === null || weight === undefined || scales === undefined) {
    throw new BugError(`quantized layer ${layer.node} (${layer.scheme}) lacks a part`);
  }
  const k = layer.members[0]?.shape[1] ?? 0;
  const rows = layer.members.map((member) => member.shape[0] ?? 0);
  const slices = memberSlices(rows, k, native);
  for (const [index, source] of layer.members.entries()) {
    const slice = slices[index];
    if (slice === undefined) throw new BugError(`no slice for ${source.name}`);
    yield {
      source,
      run: (fd) =>
        stream.addon.quantize({
          source: { fd, offset: source.offset },
          dataType: floatType(source),
          n: rows[index] ?? 0,
          k,
          ...native,
          packed: true,
          weight: new Uint8Array(weight, slice.weightOffset, slice.weightBytes),
          scales: new Float32Array(
            scales,
            slice.scaleOffset * Float32Array.BYTES_PER_ELEMENT,
            slice.scaleCount,
          ),
          threads: stream.threads,
        }),
    };
  }
}

/** Runs tasks in file order, a few at once; the first failure stops the rest. */
async function runTasks(unordered: readonly Task[], stream: WeightStream): Promise<void> {
  const tasks = [...unordered].sort(
    (a, b) => a.source.file.localeCompare(b.source.file) || a.source.offset - b.source.offset,
  );
  const files = new Map<string, FileHandle>();
  for (const file of new Set(tasks.map((task) => task.source.file))) files.set(file, await stream.open(file));
  const fdOf = (source: WeightSource): number => files.get(source.file)?.fd ?? -1;
  let next = 0;
  let bytesDone = 0;
  let failed = false;
  const worker = async (): Promise<void> => {
    while (next < tasks.length && !failed) {
      stream.signal?.throwIfAborted();
      const index = next++;
      const ahead = tasks[index + READ_AHEAD]?.source;
      if (ahead !== undefined) stream.addon.prefetch(fdOf(ahead), ahead.offset, ahead.byteLength);
      const { source, run } = tasks[index] as Task;
      try {
        checkResult(source, await run(fdOf(source)));
      } catch (error) {
        failed = true;
        throw error;
      }
      bytesDone += source.byteLength;
      stream.onProgress(bytesDone);
    }
  };
  // Every worker ends before a file closes: native reads use the raw descriptors.
  const outcomes = await Promise.allSettled(Array.from({ length: CONCURRENCY }, worker));
  await Promise.all([...files.values()].map((handle) => handle.close()));
  for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason;
}

function checkResult(source: WeightSource, result: QuantizeResult): void {
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
  throw new UserError('invalid_checkpoint', `Could not read ${source.name} from ${source.file}: ${why}.`, {
    param: source.name,
    suggestions: ['Check that the file is complete and was not replaced while it was being read.'],
  });
}

function floatType(source: WeightSource): 'float32' | 'float16' | 'bfloat16' {
  const { dataType } = source;
  if (dataType === 'float32' || dataType === 'float16' || dataType === 'bfloat16') return dataType;
  throw new BugError(`${source.name} has data type ${dataType}, which is not a float`);
}
