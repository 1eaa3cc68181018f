import { stringAttribute } from '../graph/builder.js';
import { byteLengthOf } from '../graph/data-types.js';
import type { Graph } from '../graph/ir.js';
import { FDQ_DOMAIN } from '../models/blocks/context.js';
import { parseQuantization } from '../quant/config.js';
import { makePlan } from '../quant/plan.js';
import type { LayerReport } from '../quant/report.js';
import { quantizeGraph } from '../quant/rewrite.js';
import type { Arithmetic } from './arithmetic.js';

export interface QuantizationFlags {
  /** `--quantization`: a scheme name, or a JSON object as text. */
  readonly quantization?: string;
  /** `--quantization-config`, parsed. */
  readonly quantizationConfig?: Readonly<Record<string, unknown>>;
}

export interface QuantizedModel {
  readonly graph: Graph;
  readonly layers: readonly LayerReport[];
  /** Canonical name of the scheme asked for. */
  readonly scheme: string;
}

/** From flags to a rewritten graph, through the plan. */
export function applyQuantization(
  graph: Graph,
  flags: QuantizationFlags,
  arithmetic: Arithmetic,
): QuantizedModel {
  const request = parseQuantization({ quantization: flags.quantization, config: flags.quantizationConfig });
  const plan = makePlan({ graph, scheme: request.scheme, ignore: request.ignore });
  const rewritten = quantizeGraph(graph, plan, { compute: arithmetic.compute });
  const chosen = withAttentionCompute(rewritten.graph, arithmetic.compute);
  return { ...rewritten, graph: chosen, scheme: request.scheme.name };
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
