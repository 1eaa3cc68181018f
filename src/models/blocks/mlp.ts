import type { Dimension } from '../../graph/ir.js';
import type { ModelConfig, TensorSpec } from '../architecture.js';
import { FDQ_DOMAIN, scopeOf, type BlockContext } from './context.js';
import { addLinear, linearTensors } from './linear.js';

export function mlpTensors(module: string, config: ModelConfig, bias: boolean): readonly TensorSpec[] {
  const { hiddenSize, intermediateSize } = config;
  const inner = { rows: intermediateSize, columns: hiddenSize, bias };
  return [
    ...linearTensors(`${module}.gate_proj`, inner, `${module}.gate_up_proj`),
    ...linearTensors(`${module}.up_proj`, inner, `${module}.gate_up_proj`),
    ...linearTensors(`${module}.down_proj`, { rows: hiddenSize, columns: intermediateSize, bias }),
  ];
}

/** down(silu(gate(x)) * up(x)). https://arxiv.org/abs/2002.05202 */
export function addMlp(context: BlockContext, module: string, x: string): string {
  const gateUp = addLinear(context, `${module}.gate_up_proj`, x);
  const activated = scopeOf(context.graph, module).value({
    opType: 'SwiGLU',
    domain: FDQ_DOMAIN,
    inputs: [gateUp],
    output: { dataType: 'float32', shape: [context.graph.valueInfo(gateUp).shape[0] as Dimension, context.config.intermediateSize] },
  });
  return addLinear(context, `${module}.down_proj`, activated);
}
