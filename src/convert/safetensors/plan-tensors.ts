import { BugError, UnsupportedError } from '../../errors.js';
import type { Graph, Initializer, QuantizedLayer, QuantizedPart } from '../../graph/ir.js';
import type { SafetensorsDtype } from '../../hub/checkpoint.js';
import type { CheckpointPlan } from '../../load/plan.js';
import { memberSlices, type MemberSlice } from '../../quant/packed-layout.js';
import { SCHEMES } from '../../quant/registry.js';
import type { QuantScheme, WeightTensor } from '../../quant/scheme.js';
import { layoutOf, type StoredLayout } from './stored-layout.js';

/** A tensor of the output. */
export interface OutputTensor {
  readonly name: string;
  readonly dtype: SafetensorsDtype;
  readonly shape: readonly number[];
  readonly byteLength: number;
  /** Bytes known beforehand; absent: they come from a source. */
  readonly bytes?: Uint8Array;
}

/** Gives the tensors that come from some bytes of a source, whole or, where one is copied, in pieces. */
type Split = (bytes: Uint8Array) => readonly { readonly name: string; readonly bytes: Uint8Array }[];

/** A weight matrix that is written quantized. */
export interface StoredModule {
  /** Without `.weight`. */
  readonly name: string;
  readonly scheme: string;
  readonly layout: StoredLayout;
}

/** What a safetensors checkpoint is made of. */
export interface OutputPlan {
  readonly tensors: readonly OutputTensor[];
  readonly modules: readonly StoredModule[];
  /** Sources for `produceWeights`. */
  readonly graph: Graph;
  /** By name of the source. */
  readonly splits: ReadonlyMap<string, Split>;
  /** The layout is DeepSeek's: `weight_scale_inv` for tiles. */
  readonly isBlockFp8: boolean;
}

const WEIGHT = '.weight';
const TILE_SCHEME = 'block_wise_fp8';
const TILE_SCALES = 'weight_scale_inv';
const LAYOUT_SCHEMES =
  'wint8, wint4, w8a8, w4a8, w4afp8, fp8_per_channel, fp8_per_tensor, block_wise_fp8 and nvfp4';

/**
 * Every tensor of a model as other engines read it: those of quantized layers under the checkpoint's unfused names, all
 * others as the checkpoint has them.
 * @throws UnsupportedError `unsupported_model` naming the layer that the format cannot hold
 */
export function planTensors({ graph, checkpoint }: CheckpointPlan): OutputPlan {
  const gather = graph.nodes.find(({ opType, domain }) => domain === 'fdq' && opType === 'QuantGather');
  if (gather !== undefined) {
    throw refuse(
      `quantized embeddings (${gather.name})`,
      'Leave --quantize-embeddings out (and --quantize-lm-head where the two are tied), or write --format fdq.',
    );
  }
  const layers = layersOf(graph);
  const isBlockFp8 = layers.size > 0 && [...layers.keys()].every(({ scheme }) => scheme === TILE_SCHEME);
  const modules = new Map<string, StoredModule>();
  const quantized = new Map<string, readonly OutputTensor[]>();
  const splits = new Map<string, Split>();
  for (const [layer, parts] of layers) {
    const stored = describeLayer(layer, isBlockFp8);
    for (const [index, module] of stored.modules.entries()) {
      const source = layer.members[index] as QuantizedLayer['members'][number];
      const other = modules.get(source.name);
      if (other !== undefined)
        throw refuse(`${source.name} as both ${other.scheme} and ${module.scheme}`, 'Give it one scheme.');
      modules.set(source.name, module);
      quantized.set(source.name, tensorsOf(module, matrixOf(source.shape)));
    }
    for (const { name, part } of parts) splits.set(name, splitPart(layer, stored, part));
  }
  const copied = [...checkpoint.tensors.values()].filter(({ name }) => !quantized.has(name));
  const held = copied.find(({ stored }) => stored !== undefined);
  if (held !== undefined)
    throw refuse(`${held.name}, which is stored quantized and not part of the model`, HINT);
  for (const { name } of copied) splits.set(name, (bytes) => [{ name, bytes }]);
  const tensors = [...checkpoint.tensors.values()].flatMap(
    ({ name, dtype, shape, byteLength }) => quantized.get(name) ?? [{ name, dtype, shape, byteLength }],
  );
  const sources = [...graph.initializers.values()].filter(({ name }) => splits.has(name));
  const initializers = [...sources, ...copied.map(asExternal)];
  return {
    tensors,
    modules: [...modules.values()],
    graph: { ...graph, initializers: new Map(initializers.map((each) => [each.name, each])) },
    splits,
    isBlockFp8,
  };
}

/** Whether a matrix can be written in a scheme. */
export function holds(scheme: QuantScheme, { shape }: Pick<WeightTensor, 'shape'>): boolean {
  if (scheme.native === null) return true;
  const layout = layoutOf(scheme);
  return layout !== undefined && (shape[1] ?? 0) % layout.divisor === 0;
}

const HINT = 'Write --format fdq.';

function refuse(what: string, hint: string): UnsupportedError {
  return new UnsupportedError('unsupported_model', `The format "safetensors" cannot hold ${what}.`, {
    param: '--format',
    suggestions: [hint],
  });
}

interface LayerPart {
  /** Of the initializer. */
  readonly name: string;
  readonly part: QuantizedPart;
}

function layersOf(graph: Graph): ReadonlyMap<QuantizedLayer, readonly LayerPart[]> {
  const layers = new Map<QuantizedLayer, LayerPart[]>();
  for (const { name, data } of graph.initializers.values()) {
    if (data.kind === 'quantized') {
      layers.set(data.layer, [...(layers.get(data.layer) ?? []), { name, part: data.part }]);
    }
  }
  return layers;
}

interface DescribedLayer {
  readonly layout: StoredLayout;
  readonly modules: readonly StoredModule[];
  readonly slices: readonly MemberSlice[];
}

function describeLayer(layer: QuantizedLayer, isBlockFp8: boolean): DescribedLayer {
  const scheme = SCHEMES.find(({ name }) => name === layer.scheme);
  const found = scheme === undefined ? undefined : layoutOf(scheme);
  if (scheme?.native == null || found === undefined) {
    throw refuse(`${layer.scheme} (${layer.node})`, `Use ${LAYOUT_SCHEMES}, or write --format fdq.`);
  }
  const layout = isBlockFp8 ? withTileScales(found) : found;
  for (const member of layer.members) checkMember(member, scheme, layout);
  const { k } = matrixOf(layer.members[0]?.shape ?? []);
  const rows = layer.members.map(({ shape }) => matrixOf(shape).n);
  return {
    layout,
    slices: memberSlices(rows, k, scheme.native),
    modules: layer.members.map(({ name }) => ({
      name: name.slice(0, -WEIGHT.length),
      scheme: layer.scheme,
      layout,
    })),
  };
}

function withTileScales(layout: StoredLayout): StoredLayout {
  const { scales } = layout.parts;
  if (scales === undefined) throw new BugError('tiles have no scales');
  return { ...layout, parts: { ...layout.parts, scales: { ...scales, suffix: TILE_SCALES } } };
}

function checkMember(
  { name, shape }: QuantizedLayer['members'][number],
  { name: scheme }: QuantScheme,
  { divisor }: StoredLayout,
): void {
  const { k } = matrixOf(shape);
  if (!name.endsWith(WEIGHT)) throw refuse(`${name}, whose name does not end with "${WEIGHT}"`, HINT);
  if (k % divisor === 0) return;
  throw refuse(
    `${name} as ${scheme}: its ${k} columns are no multiple of ${divisor}, and other engines load no shorter group`,
    `Use smaller groups or one scale a row, or leave the layer out: --quantization '{"quantization": "${scheme}", "ignore": [...]}'.`,
  );
}

function matrixOf(shape: readonly number[]): { readonly n: number; readonly k: number } {
  const [n = 0, k = 0] = shape;
  return { n, k };
}

const DTYPE_BYTES = { F8_E4M3: 1, I8: 1, U8: 1, F32: 4, I32: 4 } as const;

function tensorsOf(
  { name, layout }: StoredModule,
  matrix: { readonly n: number; readonly k: number },
): readonly OutputTensor[] {
  const tensors = Object.values(layout.parts).map((part): OutputTensor => {
    const shape = part.shape(matrix);
    const byteLength = shape.reduce((product, size) => product * size, DTYPE_BYTES[part.dtype]);
    return { name: `${name}.${part.suffix}`, dtype: part.dtype, shape, byteLength };
  });
  if (!layout.hasShape) return tensors;
  const bytes = new Uint8Array(BigInt64Array.of(BigInt(matrix.n), BigInt(matrix.k)).buffer);
  const { byteLength } = bytes;
  return [...tensors, { name: `${name}.weight_shape`, dtype: 'I64', shape: [2], byteLength, bytes }];
}

/** The members' tensors from one part of a fused layer. */
function splitPart(
  layer: QuantizedLayer,
  { layout, modules, slices }: DescribedLayer,
  part: QuantizedPart,
): Split {
  const tensor = layout.parts[part];
  if (tensor === undefined) throw new BugError(`${layer.scheme} has ${part}, which its layout does not know`);
  return (bytes) =>
    modules.map(({ name }, index) => {
      const matrix = matrixOf(layer.members[index]?.shape ?? []);
      const range = rangeOf(slices[index] as MemberSlice, part);
      const panels = bytes.subarray(range.offset, range.offset + range.byteLength);
      return { name: `${name}.${tensor.suffix}`, bytes: tensor.convert(matrix, panels) };
    });
}

function rangeOf(
  slice: MemberSlice,
  part: QuantizedPart,
): { readonly offset: number; readonly byteLength: number } {
  const float = Float32Array.BYTES_PER_ELEMENT;
  switch (part) {
    case 'weight':
      return { offset: slice.weightOffset, byteLength: slice.weightBytes };
    case 'scales':
      return { offset: slice.scaleOffset * float, byteLength: slice.scaleCount * float };
    case 'block_scales':
      return { offset: slice.blockScaleOffset, byteLength: slice.blockScaleBytes };
    case 'zero_points':
      return { offset: slice.zeroPointOffset, byteLength: slice.zeroPointCount };
  }
}

/** A tensor that is copied, as bytes in a file. */
function asExternal({
  name,
  file,
  offset,
  byteLength,
}: {
  readonly name: string;
  readonly file: string;
  readonly offset: number;
  readonly byteLength: number;
}): Initializer {
  return {
    name,
    dataType: 'uint8',
    shape: [byteLength],
    data: { kind: 'external', file, offset, byteLength },
  };
}
