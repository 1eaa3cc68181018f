import { floatAttribute, intAttribute, stringAttribute } from '../../graph/builder.js';
import type { ModelConfig, TensorSpec } from '../architecture.js';
import { FDQ_DOMAIN, scopeOf, type BlockContext } from './context.js';
import { addRowSelection } from './embedding.js';
import { addLinear, linearTensors } from './linear.js';
import { addNormWeight, normTensor } from './norm.js';

export interface AttentionTensors {
  readonly qkvBias: boolean;
  readonly outputBias: boolean;
  /** RMSNorm weights over each head of q and k. */
  readonly qkNorm: boolean;
}

export function attentionTensors(module: string, config: ModelConfig, has: AttentionTensors): readonly TensorSpec[] {
  const { hiddenSize: columns, headDim } = config;
  const queryRows = config.numHeads * headDim;
  const group = `${module}.qkv_proj`;
  const keyValue = { rows: config.numKvHeads * headDim, columns, bias: has.qkvBias };
  return [
    ...linearTensors(`${module}.q_proj`, { ...keyValue, rows: queryRows }, group),
    ...linearTensors(`${module}.k_proj`, keyValue, group),
    ...linearTensors(`${module}.v_proj`, keyValue, group),
    ...linearTensors(`${module}.o_proj`, { rows: columns, columns: queryRows, bias: has.outputBias }),
    ...(has.qkNorm ? [normTensor(`${module}.q_norm`, headDim), normTensor(`${module}.k_norm`, headDim)] : []),
  ];
}

export interface AttentionInputs {
  readonly x: string;
  /** [tokens, rotaryDim] */
  readonly rotary: string;
  readonly queryStarts: string;
  readonly contextLengths: string;
  readonly blockTables: string;
  /** The only tokens whose result is wanted; absent: all. */
  readonly rows?: string | undefined;
}

/**
 * Self-attention of a layer over the paged KV cache.
 *
 *   x ── qkv_proj ──► PagedAttention (q/k norm, rotation, cache write, softmax) ── o_proj ──►
 */
export function addAttention(context: BlockContext, module: string, layer: number, inputs: AttentionInputs): string {
  const { config, graph } = context;
  const qkv = addLinear(context, `${module}.qkv_proj`, inputs.x);
  const attended = scopeOf(graph, module).value({
    opType: 'PagedAttention',
    domain: FDQ_DOMAIN,
    inputs: [
      qkv,
      inputs.rotary,
      inputs.queryStarts,
      inputs.contextLengths,
      inputs.blockTables,
      addHeadNorm(context, `${module}.q_norm`),
      addHeadNorm(context, `${module}.k_norm`),
    ],
    output: { dataType: 'float32', shape: ['tokens', config.numHeads * config.headDim] },
    attributes: {
      layer: intAttribute(layer),
      num_heads: intAttribute(config.numHeads),
      num_kv_heads: intAttribute(config.numKvHeads),
      head_dim: intAttribute(config.headDim),
      scale: floatAttribute(config.headDim ** -0.5),
      window: intAttribute(config.windows[layer] ?? 0),
      rotary_dim: intAttribute(config.rope.rotaryDim),
      rotary_interleaved: intAttribute(0),
      norm_epsilon: floatAttribute(config.normEpsilon),
      compute: stringAttribute('float32'),
    },
  });
  const selected = inputs.rows === undefined ? attended : addRowSelection(context, attended, inputs.rows);
  return addLinear(context, `${module}.o_proj`, selected);
}

function addHeadNorm(context: BlockContext, module: string): string {
  return context.weights.members(`${module}.weight`).length === 0 ? '' : addNormWeight(context, module);
}
