import { counted } from '../../counted.js';
import { UserError } from '../../errors.js';
import type { Graph } from '../../graph/ir.js';
import { listScopes } from '../../graph/scopes.js';
import {
  applyQuantization,
  type QuantizationFlags,
  type QuantizedModel,
} from '../../load/apply-quantization.js';
import { GRAPH_ARITHMETIC } from './destination.js';

/** Operators whose weights are quantized already. */
const QUANTIZED_OPERATORS: ReadonlySet<string> = new Set(['MatMulNBits', 'QMoE']);

/**
 * What the flags make of the products of a float model.
 * @param model as the user named it
 * @param source the whole model; `view` has its float products
 * @throws UserError as `applyQuantization`, and `already_quantized` where no product becomes what the flags ask for
 *   because others were quantized before
 */
export function quantizeView(
  model: string,
  { source, view }: { readonly source: Graph; readonly view: Graph },
  flags: QuantizationFlags,
): QuantizedModel {
  const quantized = applyQuantization(view, flags, GRAPH_ARITHMETIC);
  const isAsked = quantized.scheme !== 'none';
  if (!isAsked || quantized.layers.some(({ scheme }) => scheme !== 'none')) return quantized;
  const nodes = listScopes(source).flatMap(({ graph }) => graph.nodes);
  const count = nodes.filter(({ opType }) => QUANTIZED_OPERATORS.has(opType)).length;
  if (count === 0) return quantized;
  throw new UserError(
    'already_quantized',
    `${counted(count, 'product')} of ${JSON.stringify(model)} ${count === 1 ? 'is' : 'are'} quantized already, and no other one becomes ${quantized.scheme}.`,
    {
      param: 'quantization',
      suggestions: ['Start from the float model, or name products that are not quantized yet.'],
    },
  );
}
