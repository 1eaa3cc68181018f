import { elementTypeOf } from '../../graph/data-types.js';
import type { Graph, GraphNode, Initializer } from '../../graph/ir.js';
import { findDefinition, listScopes, type Scope } from '../../graph/scopes.js';
import { findExperts } from './find-experts.js';
import {
  ViewBuilder,
  type FoundExperts,
  type FoundLayer,
  type LayerType,
  type LayerView,
  type Matrix,
} from './layer-view.js';

/** A matrix, and the type of the values it is multiplied with. */
interface Operand extends Matrix {
  readonly type: LayerType;
}

/**
 * Finds every MatMul and Gemm with a constant matrix of floats, as it is or through a Transpose and a Cast to float32,
 * and every MoE; in the graph and in the bodies of its If, Loop and Scan nodes. Layers that share an initializer, of
 * whichever graph around them, share it here too.
 * @param inlineFile file that will hold the weights that are inside of the model file
 */
export function findLayers(source: Graph, inlineFile: string): LayerView {
  const scopes = listScopes(source);
  const view = new ViewBuilder(inlineFile, scopes.flatMap(namesOf));
  const layers = new Map<string, FoundLayer>();
  const experts = new Map<string, FoundExperts>();
  const skipped = new Map<string, string>();
  for (const scope of scopes) {
    for (const node of scope.graph.nodes) {
      const found = findExperts(scope, node) ?? findOperand(scope, node);
      if (found === undefined) continue;
      if (typeof found === 'string') skipped.set(node.name, found);
      else if ('matrices' in found) experts.set(node.name, addExperts(view, node, found));
      else {
        const output = view.add(node.name, found);
        const bias = node.inputs[2] ?? '';
        layers.set(node.name, { node, scope, type: found.type, k: found.shape[1], bias, output });
      }
    }
  }
  const { inline, origins } = view;
  return { graph: view.build(source), layers, experts, origins, skipped, inline };
}

function addExperts(
  view: ViewBuilder,
  node: GraphNode,
  { type, matrices }: { readonly type: FoundExperts['type']; readonly matrices: readonly Matrix[] },
): FoundExperts {
  const parts = matrices.map((matrix, index) => ({
    shape: matrix.initializer.shape,
    output: view.add(`${node.name}/fc${index + 1}`, matrix),
  }));
  return { node, type, parts };
}

/** Every name of a graph: of values, initializers and nodes. */
function namesOf({ graph, producers }: Scope): readonly string[] {
  return [
    ...graph.inputs.map(({ name }) => name),
    ...graph.initializers.keys(),
    ...producers.keys(),
    ...graph.nodes.map(({ name }) => name),
  ];
}

/** @returns a sentence without its subject for a product with a constant matrix that has to stay */
function findOperand(start: Scope, node: GraphNode): Operand | string | undefined {
  if (node.domain !== '' || (node.opType !== 'MatMul' && node.opType !== 'Gemm')) return undefined;
  let found = findDefinition(start, node.inputs[1] ?? '');
  let isSwap = false;
  let isWidened = false;
  while (found?.producer !== undefined) {
    const { producer, scope } = found;
    if (swapsAxes(producer)) isSwap = !isSwap;
    else if (isCastToFloat32(producer)) isWidened = true;
    else return undefined;
    found = findDefinition(scope, producer.inputs[0] ?? '');
  }
  const initializer = found?.initializer;
  if (initializer?.shape.length !== 2) return undefined;
  const obstacle = findObstacle(node);
  if (obstacle !== undefined) return obstacle;
  const { dataType } = initializer;
  if (!isLayerType(dataType)) return `its weight is ${dataType}, not float32, float16 or bfloat16`;
  const transB = node.attributes['transB'];
  const transposed = isSwap === (transB?.type === 'int' && transB.value === 1);
  const [first = 0, second = 0] = initializer.shape;
  return {
    initializer,
    shape: transposed ? [second, first] : [first, second],
    transposed,
    type: isWidened ? 'float32' : dataType,
  };
}

function swapsAxes({ domain, opType, attributes }: GraphNode): boolean {
  const perm = attributes['perm'];
  return domain === '' && opType === 'Transpose' && (perm?.type !== 'ints' || perm.value.join() === '1,0');
}

function isCastToFloat32({ domain, opType, attributes }: GraphNode): boolean {
  const to = attributes['to'];
  return domain === '' && opType === 'Cast' && to?.type === 'int' && to.value === elementTypeOf('float32');
}

function isLayerType(type: Initializer['dataType']): type is LayerType {
  return type === 'float32' || type === 'float16' || type === 'bfloat16';
}

function findObstacle({ attributes, opType }: GraphNode): string | undefined {
  for (const [name, neutral] of [['transA', 0] as const, ['alpha', 1] as const, ['beta', 1] as const]) {
    const attribute = attributes[name];
    const value = attribute?.type === 'int' || attribute?.type === 'float' ? attribute.value : neutral;
    if (value !== neutral) return `its ${opType} has ${name} ${value}`;
  }
  return undefined;
}
