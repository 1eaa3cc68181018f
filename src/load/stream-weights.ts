import type { FileHandle } from 'node:fs/promises';
import { BugError, UnsupportedError, UserError } from '../errors.js';
import { byteLengthOf, elementTypeOf } from '../graph/data-types.js';
import type {
  DataType,
  Graph,
  Initializer,
  QuantizedLayer,
  QuantizedPart,
  StoredWeight,
  WeightSource,
} from '../graph/ir.js';
import { memberSlices, type MemberSlice } from '../quant/packed-layout.js';
import { resolveScheme } from '../quant/registry.js';
import { schemeOfStored } from '../quant/stored-scheme.js';
import type { NativeAddon, NativeInitializer, QuantizeJob, RepackJob } from '../runtime/addon.js';
import { measureMagnitude, openFloats, type FloatMatrix } from './open-floats.js';
import { checkResult, floatType, unreadable } from './read-problems.js';
import { readTransposed } from './read-transposed.js';
import { filesOfSource, rangesOfSource, repackStored } from './repack-stored.js';

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

/** The descriptor of an open file. */
type FdOf = (file: string) => number;

/** One tensor to be read into its final place. */
interface Task {
  readonly source: WeightSource;
  readonly run: (fdOf: FdOf) => Promise<void>;
}

export type LayerParts = Partial<Record<QuantizedPart, ArrayBuffer>>;
type WeightData = Extract<Initializer['data'], { kind: 'weight' }>;

/**
 * Produces every large initializer of a graph: maps what is used as stored, widens what the graph wants as
 * float32, repacks what is stored quantized, and quantizes the rest straight into its final buffer, in the order of
 * the files.
 * @throws UserError `non_finite_weight` naming tensor, row and column; `invalid_checkpoint` when a file ends
 *   early or cannot be read.
 */
export async function streamWeights(
  graph: Graph,
  stream: WeightStream,
): Promise<readonly NativeInitializer[]> {
  const files = new Map<string, FileHandle>();
  try {
    for (const file of filesOf(graph)) files.set(file, await stream.open(file));
    const fdOf = (file: string): number => {
      const handle = files.get(file);
      if (handle === undefined) throw new BugError(`${file} was not opened`);
      return handle.fd;
    };
    const result: NativeInitializer[] = [];
    const tasks: Task[] = [];
    const layers = new Map<QuantizedLayer, LayerParts>();
    for (const initializer of graph.initializers.values()) {
      if (initializer.data.kind === 'inline') continue;
      const memory = placeInitializer(initializer, stream.addon, fdOf);
      result.push(describe(initializer, memory));
      const { data } = initializer;
      if (data.kind === 'quantized') {
        layers.set(data.layer, { ...layers.get(data.layer), [data.part]: memory });
      } else if (data.kind === 'weight' && !isMapped(initializer)) {
        tasks.push(...readTasks(stream.addon, initializer.dataType, data, memory));
      }
    }
    for (const [layer, parts] of layers) tasks.push(...quantizeTasks(stream, layer, parts));
    await runTasks(tasks, stream, fdOf);
    return result;
  } finally {
    await Promise.all([...files.values()].map((handle) => handle.close()));
  }
}

/** Every file some initializer comes from. */
function filesOf(graph: Graph): ReadonlySet<string> {
  const files = new Set<string>();
  for (const { data } of graph.initializers.values()) {
    if (data.kind === 'external') files.add(data.file);
    for (const file of sourcesOf(data).flatMap(filesOfSource)) files.add(file);
  }
  return files;
}

/** Every tensor that is read for an initializer. */
function sourcesOf(data: Initializer['data']): readonly WeightSource[] {
  if (data.kind === 'weight') return data.members;
  return data.kind === 'quantized' ? [...data.layer.members, ...(data.layer.scaleGroup ?? [])] : [];
}

/** Checkpoint bytes that are read rather than mapped. */
export function streamedBytes(graph: Graph): number {
  const members = new Set<WeightSource>();
  for (const initializer of graph.initializers.values()) {
    const { data } = initializer;
    if (data.kind === 'quantized') data.layer.members.forEach((member) => members.add(member));
    if (data.kind === 'weight' && !isMapped(initializer))
      data.members.forEach((member) => members.add(member));
  }
  return [...members].reduce((sum, member) => sum + member.byteLength, 0);
}

/** One tensor used as it lies in its file is mapped, never copied. */
export function isMapped({ dataType, data }: Initializer): boolean {
  if (data.kind !== 'weight') return data.kind === 'external';
  const [only, ...others] = data.members;
  const isWhole = others.length === 0 && (data.addend ?? 0) === 0;
  return isWhole && only?.dataType === dataType && only.stored === undefined && only.transposed !== true;
}

function placeInitializer(
  initializer: Initializer,
  addon: NativeAddon,
  fdOf: (file: string) => number,
): ArrayBuffer {
  const { data, dataType, shape, name } = initializer;
  const [only] = data.kind === 'weight' ? data.members : [];
  const mapped = data.kind === 'external' ? data : isMapped(initializer) ? only : undefined;
  if (mapped === undefined) return allocate(addon, name, byteLengthOf(dataType, shape));
  try {
    // By descriptor, not by name: the file mapped is the one whose identity `open` compared.
    return addon.mapFile(`/proc/self/fd/${fdOf(mapped.file)}`, mapped.offset, mapped.byteLength);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw unreadable(name, mapped.file, reason, cause);
  }
}

function allocate(addon: NativeAddon, name: string, byteLength: number): ArrayBuffer {
  try {
    return addon.allocate(byteLength);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new UserError('out_of_memory', `No memory for ${name}: ${reason}.`, {
      param: name,
      suggestions: ['Use fewer bytes a weight: --quantization wint8 or wint4.', 'Raise the memory limit.'],
      cause,
    });
  }
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
    if (source.stored !== undefined) throw refuseFloats(source, source.stored);
    const widen = source.dataType === dataType && (data.addend ?? 0) === 0 ? undefined : floatType(source);
    const byteLength = byteLengthOf(dataType, source.shape);
    const target = new Uint8Array(memory, offset, byteLength);
    offset += byteLength;
    const range = { offset: source.offset, byteLength: source.byteLength, target };
    yield {
      source,
      run: async (fdOf) => {
        const fd = fdOf(source.file);
        if (source.transposed === true) return readTransposed(addon, source, fd, target);
        const job =
          widen === undefined ? range : { ...range, widen: { from: widen, addend: data.addend ?? 0 } };
        checkResult(source, await addon.read({ fd, ...job }));
      },
    };
  }
}

function* quantizeTasks(stream: WeightStream, layer: QuantizedLayer, parts: LayerParts): Generator<Task> {
  const stored = layer.members.find((member) => member.stored?.scheme === layer.scheme)?.stored;
  const { native } = stored === undefined ? resolveScheme(layer.scheme) : schemeOfStored(stored);
  if (native === null) throw new BugError(`${layer.node} is quantized to ${layer.scheme}`);
  const k = layer.members[0]?.shape[1] ?? 0;
  const rows = layer.members.map((member) => member.shape[0] ?? 0);
  const slices = memberSlices(rows, k, native);
  const scaleOf = shareScale(stream, layer);
  for (const [index, source] of layer.members.entries()) {
    const slice = slices[index];
    if (slice === undefined) throw new BugError(`no slice for ${source.name}`);
    const target = memberParts(layer, parts, slice);
    const job = { ...native, packed: true, ...target, threads: stream.threads };
    yield { source, run: memberTask(stream, { source, layer, job, target, scaleOf }) };
  }
}

type ScaleOf = (fdOf: FdOf) => Promise<number | undefined>;

/** The tensor scale of all members, found when the first of them asks; undefined where each has its own. */
function shareScale(
  { addon, threads, signal }: WeightStream,
  { scheme, scaleGroup = [] }: QuantizedLayer,
): ScaleOf {
  const find = async (fdOf: FdOf): Promise<number | undefined> => {
    let largest = 0;
    for (const source of scaleGroup) {
      largest = Math.max(largest, await measureMagnitude(source, { addon, threads, fdOf, signal }));
    }
    return resolveScheme(scheme).findTensorScale?.(largest);
  };
  let found: ReturnType<ScaleOf> | undefined;
  return async (fdOf) => (scaleGroup.length === 0 ? undefined : (found ??= find(fdOf)));
}

/** Repacks what is stored in the layer's scheme; quantizes floats, or those that another stored scheme stands for. */
function memberTask(
  { addon, threads }: WeightStream,
  member: {
    readonly source: WeightSource;
    readonly layer: QuantizedLayer;
    readonly job: Omit<QuantizeJob, keyof FloatMatrix>;
    readonly target: RepackJob['target'];
    readonly scaleOf: ScaleOf;
  },
): Task['run'] {
  const { source, layer, job, target, scaleOf } = member;
  const { stored } = source;
  if (stored?.scheme === layer.scheme) {
    return (fdOf) => repackStored(addon, { source: { ...source, stored }, target, threads, fdOf });
  }
  return async (fdOf) => {
    const tensorScale = await scaleOf(fdOf);
    const floats = await openFloats(source, { addon, threads, fdOf });
    const shared = tensorScale === undefined ? {} : { tensorScale };
    checkResult(source, await addon.quantize({ ...floats, ...job, ...shared }));
  };
}

/** Layers that keep their weights cannot be those of a checkpoint that is quantized anew. */
function refuseFloats({ name }: WeightSource, { scheme, method }: StoredWeight): UnsupportedError {
  return new UnsupportedError(
    'unsupported_model',
    `${name} is stored as ${scheme} (${method}) and cannot be kept as floats.`,
    { param: name, suggestions: ['Give the layer a scheme too, or leave it as it is stored.'] },
  );
}

/** Where the parts of one member go; a part that the format does not have is empty or absent. */
export function memberParts(
  layer: QuantizedLayer,
  parts: LayerParts,
  slice: MemberSlice,
): RepackJob['target'] {
  const place = (part: QuantizedPart): ArrayBuffer => {
    const memory = parts[part];
    if (memory === undefined) throw new BugError(`${layer.node} (${layer.scheme}) lacks its ${part}`);
    return memory;
  };
  const scaleOffset = slice.scaleOffset * Float32Array.BYTES_PER_ELEMENT;
  return {
    weight: new Uint8Array(place('weight'), slice.weightOffset, slice.weightBytes),
    scales:
      slice.scaleCount === 0
        ? new Float32Array()
        : new Float32Array(place('scales'), scaleOffset, slice.scaleCount),
    ...(slice.blockScaleBytes === 0
      ? {}
      : {
          blockScales: new Uint8Array(place('block_scales'), slice.blockScaleOffset, slice.blockScaleBytes),
        }),
    ...(slice.zeroPointCount === 0
      ? {}
      : { zeroPoints: new Int8Array(place('zero_points'), slice.zeroPointOffset, slice.zeroPointCount) }),
  };
}

/**
 * Runs tasks in file order, a few at once. A failure stops the rest; of several the first in file order is thrown,
 * so that a damaged file is always reported the same way.
 */
async function runTasks(unordered: readonly Task[], stream: WeightStream, fdOf: FdOf): Promise<void> {
  const tasks = [...unordered].sort(
    (a, b) => a.source.file.localeCompare(b.source.file) || a.source.offset - b.source.offset,
  );
  const failures: { readonly index: number; readonly error: unknown }[] = [];
  let next = 0;
  let bytesDone = 0;
  const runTask = async (index: number): Promise<void> => {
    stream.signal?.throwIfAborted();
    const ahead = tasks[index + READ_AHEAD]?.source;
    for (const { file, offset, byteLength } of ahead === undefined ? [] : rangesOfSource(ahead)) {
      stream.addon.prefetch(fdOf(file), offset, byteLength);
    }
    const { source, run } = tasks[index] as Task;
    await run(fdOf);
    bytesDone += source.byteLength;
    stream.onProgress(bytesDone);
  };
  const worker = async (): Promise<void> => {
    while (next < tasks.length && failures.length === 0) {
      const index = next++;
      await runTask(index).catch((error: unknown) => failures.push({ index, error }));
    }
  };
  // Every worker ends before the files are closed: native reads use the raw descriptors.
  await Promise.all(Array.from({ length: CONCURRENCY }, worker));
  const [first] = failures.sort((a, b) => a.index - b.index);
  if (first !== undefined) throw first.error;
}
