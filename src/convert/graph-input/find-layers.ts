import { UnsupportedError } from '../../errors.js';
import { intAttribute } from '../../graph/builder.js';
import { byteLengthOf, elementTypeOf } from '../../graph/data-types.js';
import type { Graph, GraphNode, Initializer, WeightSource } from '../../graph/ir.js';

/** Node names → why a product with a constant matrix stays as it is. */
type Skipped = ReadonlyMap<string, string>;

/** The linear layers of a foreign graph, by themselves. */
export interface LayerView {
  /**
   * One Gemm [tokens, k] x [n, k]^T for each layer, under the name and with the output of its node: what a plan and the
   * quantizer see.
   */
  readonly graph: Graph;
  readonly skipped: Skipped;
  /** Weights that lie in the .onnx file itself, which `inlineFile` is to hold one after the other. */
  readonly inline: readonly Uint8Array[];
}

interface Found {
  readonly weight: Initializer;
  /** The initializer is [k, n]. */
  readonly transposed: boolean;
  /** There is a Cast to float32 between the two. */
  readonly isWidened: boolean;
}

const WEIGHT_SUFFIX = /(?:\.MatMul)?\.weight$/;

/**
 * Finds every MatMul and Gemm of float32 with a constant matrix, as it is or through a Transpose and a Cast from 16
 * bits. Layers that share an
 * initializer share it here too.
 * @param inlineFile file that will hold the weights that are inside of the model file
 * @throws UnsupportedError `unsupported_model` for float experts (MoE)
 */
export function findLayers(source: Graph, inlineFile: string): LayerView {
  const producers = new Map(source.nodes.flatMap((node) => node.outputs.map((output) => [output, node])));
  const nodes: GraphNode[] = [];
  const initializers = new Map<string, Initializer>();
  const inputs = new Map<string, Graph['inputs'][number]>();
  const skipped = new Map<string, string>();
  const spill = new Spill(inlineFile);
  for (const node of source.nodes) {
    refuseExperts(node);
    const found = findWeight(source, node, producers);
    if (found === undefined) continue;
    const [x = '', , biasName = ''] = node.inputs;
    const bias = source.initializers.get(biasName);
    const obstacle = findObstacle(node, found, biasName === '' ? undefined : (bias ?? null));
    if (obstacle !== undefined) {
      skipped.set(node.name, obstacle);
      continue;
    }
    const weight = describeWeight(found, spill);
    initializers.set(weight.name, initializers.get(weight.name) ?? weight);
    if (bias !== undefined) initializers.set(bias.name, bias);
    inputs.set(x, { name: x, dataType: 'float32', shape: ['tokens', weight.shape[1] as number] });
    nodes.push({
      name: node.name,
      domain: '',
      opType: 'Gemm',
      inputs: [x, weight.name, ...(bias === undefined ? [] : [bias.name])],
      outputs: node.outputs,
      attributes: { transB: intAttribute(1) },
    });
  }
  const graph = {
    ...source,
    inputs: [...inputs.values()],
    outputs: [],
    nodes,
    initializers,
    values: new Map(),
  };
  return { graph, skipped, inline: spill.pieces };
}

/** Experts whose weights are floats would stay unquantized without a word. */
function refuseExperts({ opType, domain, name }: GraphNode): void {
  if (opType !== 'MoE' || domain !== 'com.microsoft') return;
  throw new UnsupportedError(
    'unsupported_model',
    `The node "${name}" is a MoE of com.microsoft; fdq quantizes MatMul and Gemm with constant weights.`,
    { param: name, suggestions: ['Export the model with its experts as MatMul nodes.'] },
  );
}

function findWeight(
  { initializers }: Graph,
  node: GraphNode,
  producers: ReadonlyMap<string, GraphNode>,
): Found | undefined {
  if (node.domain !== '' || (node.opType !== 'MatMul' && node.opType !== 'Gemm')) return undefined;
  let name = node.inputs[1] ?? '';
  let isSwap = false;
  let isWidened = false;
  for (let each = producers.get(name); each !== undefined; each = producers.get(name)) {
    if (swapsAxes(each)) isSwap = !isSwap;
    else if (isCastToFloat32(each)) isWidened = true;
    else return undefined;
    name = each.inputs[0] ?? '';
  }
  const weight = initializers.get(name);
  if (weight?.shape.length !== 2) return undefined;
  const transB = node.attributes['transB'];
  const isRowMajor = isSwap !== (transB?.type === 'int' && transB.value === 1);
  return { weight, transposed: !isRowMajor, isWidened };
}

function swapsAxes({ domain, opType, attributes }: GraphNode): boolean {
  const perm = attributes['perm'];
  return domain === '' && opType === 'Transpose' && (perm?.type !== 'ints' || perm.value.join() === '1,0');
}

function isCastToFloat32({ domain, opType, attributes }: GraphNode): boolean {
  const to = attributes['to'];
  return domain === '' && opType === 'Cast' && to?.type === 'int' && to.value === elementTypeOf('float32');
}

function isHalf({ dataType }: Initializer): boolean {
  return dataType === 'float16' || dataType === 'bfloat16';
}

/** @param bias undefined: none; null: not a constant */
function findObstacle(
  { attributes, opType }: GraphNode,
  { weight, transposed, isWidened }: Found,
  bias: Initializer | null | undefined,
): string | undefined {
  if (weight.dataType !== 'float32' && !(isWidened && isHalf(weight)))
    return `its weight is ${weight.dataType}, not float32`;
  for (const [name, neutral] of [['transA', 0] as const, ['alpha', 1] as const, ['beta', 1] as const]) {
    const attribute = attributes[name];
    const value = attribute?.type === 'int' || attribute?.type === 'float' ? attribute.value : neutral;
    if (value !== neutral) return `its ${opType} has ${name} ${value}`;
  }
  if (bias === undefined) return undefined;
  if (bias === null) return 'its bias is computed';
  const n = weight.shape[transposed ? 1 : 0];
  return bias.dataType === 'float32' && bias.shape.join() === String(n)
    ? undefined
    : `its bias is ${bias.dataType} [${bias.shape.join(', ')}], not float32 [${n}]`;
}

function describeWeight({ weight, transposed }: Found, spill: Spill): Initializer {
  const { name, dataType, shape, data } = weight;
  const [first = 0, second = 0] = shape;
  const size = transposed ? [second, first] : shape;
  const place =
    data.kind === 'external'
      ? data
      : spill.place(name, data.kind === 'inline' ? data.bytes : new Uint8Array());
  const source: WeightSource = {
    name: `${name.replace(WEIGHT_SUFFIX, '')}.weight`,
    dataType,
    shape: size,
    file: place.file,
    offset: place.offset,
    byteLength: byteLengthOf(dataType, size),
    ...(transposed ? { transposed: true } : {}),
  };
  return {
    // The same matrix may be read both ways, e.g. a tied embedding.
    name: `${name}${transposed ? '.transposed' : ''}.quantized`,
    dataType,
    shape: size,
    data: { kind: 'weight', members: [source] },
  };
}

/** Gives weights inside of the model a place in a file. */
class Spill {
  readonly pieces: Uint8Array[] = [];
  readonly #file: string;
  readonly #offsets = new Map<string, number>();
  #end = 0;

  constructor(file: string) {
    this.#file = file;
  }

  place(name: string, bytes: Uint8Array): { readonly file: string; readonly offset: number } {
    const known = this.#offsets.get(name);
    if (known !== undefined) return { file: this.#file, offset: known };
    const offset = this.#end;
    this.#offsets.set(name, offset);
    this.pieces.push(bytes);
    this.#end += bytes.byteLength;
    return { file: this.#file, offset };
  }
}
