import { floatAttribute, intAttribute } from '../../graph/builder.js';
import type { TensorSpec } from '../architecture.js';
import { MICROSOFT_DOMAIN, scopeOf, type BlockContext } from './context.js';

export function normTensor(module: string, size: number): TensorSpec {
  return { name: `${module}.weight`, shape: [size], role: 'norm' };
}

/** Norm weights take part in float32 whatever they are stored as. */
export function addNormWeight({ graph, weights }: BlockContext, module: string): string {
  const name = `${module}.weight`;
  return graph.weight(name, [weights.tensor(name)], { as: 'float32' });
}

/** RMSNorm of each row. https://arxiv.org/abs/1910.07467 */
export function addRmsNorm(context: BlockContext, module: string, x: string): string {
  const weight = addNormWeight(context, module);
  return scopeOf(context.graph, module).value({
    opType: 'SimplifiedLayerNormalization',
    inputs: [x, weight],
    output: { dataType: 'float32', shape: context.graph.valueInfo(x).shape },
    attributes: {
      axis: intAttribute(-1),
      epsilon: floatAttribute(context.config.normEpsilon),
      stash_type: intAttribute(1),
    },
  });
}

interface ResidualNorm {
  readonly normed: string;
  /** x + residual */
  readonly sum: string;
}

/** RMSNorm of x + residual, and that sum: the residual stream stays unnormed. */
export function addResidualNorm(context: BlockContext, module: string, x: string, residual: string): ResidualNorm {
  const outputs = addSkipNorm(context, module, [x, residual], true);
  return { normed: outputs[0] as string, sum: outputs[3] as string };
}

/** The same where the sum is not read again. */
export function addLastNorm(context: BlockContext, module: string, x: string, residual: string): string {
  return addSkipNorm(context, module, [x, residual], false)[0] as string;
}

function addSkipNorm(
  context: BlockContext,
  module: string,
  inputs: readonly [string, string],
  keepSum: boolean,
): readonly string[] {
  const weight = addNormWeight(context, module);
  const output = { dataType: 'float32', shape: context.graph.valueInfo(inputs[0]).shape } as const;
  return scopeOf(context.graph, module).node({
    opType: 'SkipSimplifiedLayerNormalization',
    domain: MICROSOFT_DOMAIN,
    inputs: [...inputs, weight],
    // Mean and inverse deviation lie between the two results that are of use.
    outputs: keepSum ? [output, null, null, output] : [output],
    attributes: { epsilon: floatAttribute(context.config.normEpsilon) },
  });
}
