import { stringAttribute } from '../graph/builder.js';
import { byteLengthOf } from '../graph/data-types.js';
import type { Graph } from '../graph/ir.js';
import { FDQ_DOMAIN } from '../models/blocks/context.js';
import { parseQuantization, type QuantizationRequest } from '../quant/config.js';
import type { KvCacheType } from '../quant/kv-cache-type.js';
import { makePlan, type QuantizationPlan } from '../quant/plan.js';
import type { LayerReport } from '../quant/report.js';
import { quantizeGraph } from '../quant/rewrite.js';
import type { Arithmetic } from './arithmetic.js';

/** What the flags say about quantization, unchecked. */
export interface QuantizationFlags {
  /** `--quantization`: a scheme or precision name, or a JSON object as text. */
  readonly quantization?: string;
  /** `--quantization-config`, parsed. */
  readonly quantizationConfig?: Readonly<Record<string, unknown>>;
  readonly quantizeLmHead?: boolean;
  readonly quantizeEmbeddings?: boolean;
  readonly kvCacheDtype?: KvCacheType;
  /** The weights are written to files, not served: every scheme may be chosen. */
  readonly offline?: boolean;
  /** Weights that lie quantized in the checkpoint are quantized anew, from what they stand for. */
  readonly requantize?: boolean;
}

export interface QuantizedModel {
  readonly graph: Graph;
  readonly layers: readonly LayerReport[];
  /** Canonical name of the scheme asked for, or `mix_quant`. */
  readonly scheme: string;
  readonly plan: QuantizationPlan;
}

/**
 * Checks the flags by themselves, so that a mistake is found before a model is.
 * @throws UserError as `parseQuantization`
 */
export function requestOf(flags: QuantizationFlags): QuantizationRequest {
  const { quantizationConfig: config, ...rest } = flags;
  return parseQuantization({ config, ...rest });
}

/** From flags to a rewritten graph, through the plan. */
export function applyQuantization(
  graph: Graph,
  flags: QuantizationFlags,
  arithmetic: Arithmetic,
): QuantizedModel {
  const request = requestOf(flags);
  const plan = makePlan({ graph, ...request, requantize: flags.requantize === true });
  const rewritten = quantizeGraph(graph, plan, { compute: arithmetic.compute });
  const chosen = withAttentionCompute(rewritten.graph, arithmetic.compute);
  const kinds = new Map(plan.layers.flatMap(({ members, kind }) => members.map(({ name }) => [name, kind])));
  const layers = rewritten.layers.map((layer) => ({ ...layer, kind: kinds.get(layer.name) }));
  return { graph: chosen, layers, scheme: request.name, plan };
}

/** Attention multiplies in the type in which the inputs of linear layers travel. */
function withAttentionCompute(graph: Graph, compute: Arithmetic['compute']): Graph {
  const nodes = graph.nodes.map((node) =>
    node.domain === FDQ_DOMAIN && node.opType === 'PagedAttention'
      ? { ...node, attributes: { ...node.attributes, compute: stringAttribute(compute) } }
      : node,
  );
  return { ...graph, nodes };
}

/** Bytes of every initializer that is not part of the model file. */
export function weightBytesOf(graph: Graph): number {
  let bytes = 0;
  for (const { data, dataType, shape } of graph.initializers.values()) {
    if (data.kind !== 'inline') bytes += byteLengthOf(dataType, shape);
  }
  return bytes;
}
