import type { GraphNode } from '../graph/ir.js';

export const QUANT_GATHER = 'QuantGather';

/** Attributes of QuantLinear that say how a weight is to be read, and nothing about a product. */
const FORMAT_ATTRIBUTES = ['format', 'k', 'rows', 'group_n', 'group_k', 'block_k', 'block_type'] as const;

/**
 * The QuantGather that reads rows of the weight a QuantLinear reads: ids (int64 [t]), weight, scales and block
 * scales to float32 [t, k]. A tied output head reads the same initializers.
 * @param linear a QuantLinear whose x is the ids
 */
export function asQuantGather(linear: GraphNode): GraphNode {
  const [ids = '', weight = '', scales = '', , blockScales = ''] = linear.inputs;
  const attributes = FORMAT_ATTRIBUTES.flatMap((name) => {
    const attribute = linear.attributes[name];
    return attribute === undefined ? [] : [[name, attribute] as const];
  });
  return {
    ...linear,
    opType: QUANT_GATHER,
    inputs: [ids, weight, scales, ...(blockScales === '' ? [] : [blockScales])],
    attributes: Object.fromEntries(attributes),
  };
}
