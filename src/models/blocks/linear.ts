import { intAttribute } from '../../graph/builder.js';
import type { Dimension, WeightSource } from '../../graph/ir.js';
import type { TensorSpec } from '../architecture.js';
import { scopeOf, type BlockContext } from './context.js';

interface LinearShape {
  readonly rows: number;
  readonly columns: number;
  readonly bias: boolean;
}

/** Table rows of `module`; `group` is the module it is fused into, as in `qkv_proj`. */
export function linearTensors(module: string, shape: LinearShape, group?: string): readonly TensorSpec[] {
  const fused = (part: string) => (group === undefined ? {} : { fusedInto: `${group}.${part}` });
  const weight = { name: `${module}.weight`, shape: [shape.rows, shape.columns], role: 'linear', ...fused('weight') } as const;
  const bias = { name: `${module}.bias`, shape: [shape.rows], role: 'bias', ...fused('bias') } as const;
  return shape.bias ? [weight, bias] : [weight];
}

/**
 * y = x W^T + b with the weight as stored: one Gemm for a fused group, the unit the quantizer replaces. Members
 * stored in different types become a Gemm each.
 */
export function addLinear(context: BlockContext, module: string, x: string): string {
  const { graph, weights } = context;
  const members = weights.members(`${module}.weight`);
  const biases = weights.members(`${module}.bias`);
  if (new Set(members.map((member) => member.dataType)).size === 1) {
    const weight = graph.weight(`${module}.weight`, members);
    return addGemm(context, { module, x, weight, bias: addBias(context, `${module}.bias`, biases) });
  }
  const parts = members.map((member, index) => addMember(context, x, member, biases[index]));
  const rows = members.reduce((sum, member) => sum + (member.shape[0] as number), 0);
  return scopeOf(graph, module).value({
    opType: 'Concat',
    inputs: parts,
    output: { dataType: 'float32', shape: [leadingDimension(context, x), rows] },
    attributes: { axis: intAttribute(-1) },
  });
}

interface GemmInputs {
  readonly module: string;
  readonly x: string;
  /** Initializers. */
  readonly weight: string;
  readonly bias?: string | undefined;
  /** Name of the result; absent: derived from the node's. */
  readonly output?: string;
}

/** The node alone, for a weight that another node reads too. */
export function addGemm(context: BlockContext, { module, x, weight, bias, output }: GemmInputs): string {
  const rows = context.graph.valueInfo(weight).shape[0] as number;
  const shape = [leadingDimension(context, x), rows];
  return scopeOf(context.graph, module).value({
    opType: 'Gemm',
    inputs: bias === undefined ? [x, weight] : [x, weight, bias],
    output: { dataType: 'float32', shape, ...(output === undefined ? {} : { name: output }) },
    attributes: { transB: intAttribute(1) },
  });
}

function addMember(context: BlockContext, x: string, member: WeightSource, bias: WeightSource | undefined): string {
  const module = member.name.slice(0, -'.weight'.length);
  const weight = context.graph.weight(member.name, [member]);
  return addGemm(context, { module, x, weight, bias: addBias(context, `${module}.bias`, bias === undefined ? [] : [bias]) });
}

function addBias({ graph }: BlockContext, name: string, members: readonly WeightSource[]): string | undefined {
  return members.length === 0 ? undefined : graph.weight(name, members, { as: 'float32' });
}

function leadingDimension({ graph }: BlockContext, x: string): Dimension {
  return graph.valueInfo(x).shape[0] as Dimension;
}
