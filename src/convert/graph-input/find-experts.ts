import type { GraphNode, Initializer } from '../../graph/ir.js';
import { findDefinition, type Scope } from '../../graph/scopes.js';
import type { FoundExperts, Matrix } from './layer-view.js';

/** Inputs of MoE (docs/ContribOperators.md of ONNX Runtime). */
const FC1 = 2;
const FC2 = 4;
const FC3 = 6;
/** Codes of int4 are unpacked by four columns. */
const COLUMNS = 4;

/**
 * The matrices of a MoE of com.microsoft: fc1 [experts, inner, hidden] (twice as many rows where SwiGLU takes both
 * halves of one product) and fc2 [experts, hidden, inner].
 * @returns undefined for any other node; a sentence without its subject where QMoE of ONNX Runtime's CPU kernels
 *   could not take its place
 */
export function findExperts(
  scope: Scope,
  node: GraphNode,
): { readonly type: FoundExperts['type']; readonly matrices: readonly Matrix[] } | string | undefined {
  const { domain, opType, inputs, attributes } = node;
  if (domain !== 'com.microsoft' || opType !== 'MoE') return undefined;
  if ((inputs[FC3] ?? '') !== '') return 'its third matrix (FC3) is one that no CPU kernel of MoE takes';
  const activation = attributes['activation_type'];
  const isSwiglu = activation?.type === 'string' && activation.value === 'swiglu';
  const fusion = attributes['swiglu_fusion'];
  if (isSwiglu && !(fusion?.type === 'int' && fusion.value === 1))
    return 'its SwiGLU has halves that are not interleaved (swiglu_fusion 1)';
  const weights = [FC1, FC2].map((index) => findDefinition(scope, inputs[index] ?? '')?.initializer);
  const [fc1, fc2] = weights;
  if (fc1 === undefined || fc2 === undefined) return 'its experts are computed';
  const type = fc1.dataType;
  if (type !== fc2.dataType || (type !== 'float32' && type !== 'float16'))
    return `its experts are ${type} and ${fc2.dataType}, not float32 or float16`;
  const [experts = 0, inner = 0, hidden = 0] = fc1.shape;
  const expected = [experts, hidden, inner / (isSwiglu ? 2 : 1)];
  if (fc1.shape.length !== 3 || fc2.shape.join() !== expected.join())
    return `its experts have the shapes [${fc1.shape.join(', ')}] and [${fc2.shape.join(', ')}], not [experts, out, in]`;
  const matrices = [fc1, fc2].map(stack);
  const odd = matrices.find(({ shape }) => shape[1] % COLUMNS !== 0);
  if (odd !== undefined) return `its experts have ${odd.shape[1]} columns, not a multiple of ${COLUMNS}`;
  return { type, matrices };
}

/** Experts below each other: a scale belongs to a row, whichever expert has it. */
function stack(initializer: Initializer): Matrix {
  const [experts = 0, n = 0, k = 0] = initializer.shape;
  return { initializer, shape: [experts * n, k], transposed: false };
}
