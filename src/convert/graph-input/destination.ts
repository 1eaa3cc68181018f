import { UnsupportedError } from '../../errors.js';
import { byteLengthOf } from '../../graph/data-types.js';
import type { Graph, Initializer } from '../../graph/ir.js';
import { listInitializers } from '../../graph/scopes.js';
import { applyQuantization, type QuantizationFlags } from '../../load/apply-quantization.js';
import type { Destination } from '../../load/plan.js';
import { makePlan, type LayerDecision } from '../../quant/plan.js';
import { resolveScheme } from '../../quant/registry.js';
import { quantizeGraph } from '../../quant/rewrite.js';
import type { QuantScheme } from '../../quant/scheme.js';
import type { LayerView } from './layer-view.js';
import { lowerEach, rewriteModel } from './rewrite-model.js';

/** Graphs of standard operators are float32 between their nodes. */
export const GRAPH_ARITHMETIC = { compute: 'float32', kv: 'float32' } as const;
const NONE = resolveScheme('none');
/** Every layer can be written in this. */
const WRITABLE = resolveScheme('wint8');

/** Bytes by tensor; a tensor that cannot be written is not in it. */
type Sizes = ReadonlyMap<string, number>;

/**
 * The written model as what schemes are chosen for. Bytes are those of its initializers, and it holds the schemes that
 * ONNX Runtime multiplies as they lie: those that round inputs become chains of nodes, and FP8 float32 in memory.
 */
export function createGraphDestination(source: Graph, view: LayerView): Required<Destination> {
  const tensors = listTensors(view);
  const known = new Map<QuantScheme, Sizes>();
  const sizeIn = (scheme: QuantScheme): Sizes => {
    const quantized = quantizeAll(view.graph, scheme);
    return sizeQuantized(view, quantized, lowerEach(source, view, quantized));
  };
  const measure = (scheme: QuantScheme): Sizes => {
    if (scheme === NONE) return sizeFloats(source, view);
    return scheme.activation === null ? sizeIn(scheme) : new Map();
  };
  return {
    bytesOf: ({ name }, scheme) => {
      const sizes = known.get(scheme) ?? measure(scheme);
      known.set(scheme, sizes);
      return sizes.get(name);
    },
    weigh: (flags) => weighModel(source, view, flags),
    together: [...view.experts.values()].map(({ parts }) =>
      parts.flatMap(({ output }) => tensors.get(output) ?? []),
    ),
  };
}

/** Bytes of all initializers of the written model. */
export function weighModel(source: Graph, view: LayerView, flags: QuantizationFlags): number {
  const { graph } = applyQuantization(view.graph, flags, GRAPH_ARITHMETIC);
  return sumBytes(listInitializers(rewriteModel(source, view, graph).graph));
}

export function sumBytes(initializers: Iterable<Initializer>): number {
  let bytes = 0;
  for (const { dataType, shape } of new Set(initializers)) bytes += byteLengthOf(dataType, shape);
  return bytes;
}

/** The tensor of each product of the view. */
function listTensors({ graph }: LayerView): ReadonlyMap<string, string> {
  return new Map(
    graph.nodes.flatMap(({ inputs, outputs }) => {
      const data = graph.initializers.get(inputs[1] ?? '')?.data;
      const [member] = data?.kind === 'weight' ? data.members : [];
      return member === undefined ? [] : [[outputs[0] as string, member.name] as const];
    }),
  );
}

/** What leaving layers as they are takes: nothing where something else reads their matrices too. */
export function sizeFloats(source: Graph, view: LayerView): Sizes {
  const tensors = listTensors(view);
  const { graph } = rewriteModel(source, view, quantizeAll(view.graph, WRITABLE));
  const staying = new Set(listInitializers(graph));
  const origins = new Map<string, Set<Initializer>>();
  for (const { inputs, outputs } of view.graph.nodes) {
    const tensor = tensors.get(outputs[0] as string) as string;
    const origin = view.origins.get(inputs[1] as string);
    const found = origins.get(tensor) ?? new Set();
    if (origin !== undefined && !staying.has(origin)) found.add(origin);
    origins.set(tensor, found);
  }
  return new Map([...origins].map(([tensor, found]) => [tensor, sumBytes(found)]));
}

/**
 * What quantized layers take; those that cannot be written are left out.
 * @param each what `lowerEach` gives for the quantized graph
 */
export function sizeQuantized(view: LayerView, quantized: Graph, each: ReturnType<typeof lowerEach>): Sizes {
  const tensors = listTensors(view);
  const parts = new Map<string, Map<string, Initializer>>();
  const refused = new Set<string>();
  for (const [node, lowered] of each) {
    const outputs = [view.layers.get(node), ...(view.experts.get(node)?.parts ?? [])].flatMap(
      (found) => found?.output ?? [],
    );
    if (lowered instanceof UnsupportedError) {
      for (const output of outputs) refused.add(tensors.get(output) as string);
      continue;
    }
    for (const stock of lowered.tensors.values()) {
      const data = 'source' in stock ? quantized.initializers.get(stock.source)?.data : undefined;
      const [member] = data?.kind === 'quantized' ? data.layer.members : [];
      if (member === undefined) continue;
      const { target } = stock;
      parts.set(
        member.name,
        (parts.get(member.name) ?? new Map<string, Initializer>()).set(target.name, target),
      );
    }
  }
  for (const tensor of refused) parts.delete(tensor);
  return new Map([...parts].map(([tensor, targets]) => [tensor, sumBytes(targets.values())]));
}

/** Every layer in one scheme where it takes it, whatever rules say. */
function quantizeAll(graph: Graph, scheme: QuantScheme): Graph {
  const plan = makePlan({ graph, scheme });
  const decide = ({ members, kind, obstacle }: (typeof plan.layers)[number]): readonly LayerDecision[] =>
    members.map(({ name, source }) => {
      const isTaken = obstacle === undefined && scheme.accepts(source) === true;
      return { name, kind, scheme: isTaken ? scheme : NONE, reason: 'tried' };
    });
  const decisions = new Map(
    plan.layers.flatMap((layer) => layer.nodes.map((node) => [node, decide(layer)] as const)),
  );
  return quantizeGraph(graph, { ...plan, decisions }, { compute: GRAPH_ARITHMETIC.compute }).graph;
}
