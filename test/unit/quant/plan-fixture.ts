import type { UserError } from '../../../src/errors.js';
import type { Graph, StoredWeight, WeightSource } from '../../../src/graph/ir.js';
import { makePlan } from '../../../src/quant/plan.js';
import type { PlanRequest } from '../../../src/quant/plan.js';
import { resolveScheme } from '../../../src/quant/registry.js';
import type { QuantScheme } from '../../../src/quant/scheme.js';
import { addEmbedding, addGemm, modelGraph, source, startGraph, K } from './float-graph.js';

export type Rules = Partial<Omit<PlanRequest, 'graph' | 'scheme'>> & { readonly scheme?: string };

export function plan(
  { scheme = 'wint8', ...rules }: Rules,
  graph = modelGraph(),
): ReturnType<typeof makePlan> {
  return makePlan({ graph, scheme: resolveScheme(scheme), ...rules });
}

/** The scheme and the reason of one layer. */
export function decisionFor(layer: string, rules: Rules, graph = modelGraph()): string {
  const found = [...plan(rules, graph).decisions.values()].flat().find(({ name }) => name.endsWith(layer));
  if (found === undefined) throw new Error(`no layer ${layer}`);
  return `${found.scheme.name} (${found.reason})`;
}

export function failureOf(rules: Rules, graph = modelGraph()): UserError {
  try {
    plan(rules, graph);
  } catch (error) {
    return error as UserError;
  }
  throw new Error('accepted');
}

export const target = (pattern: string, scheme: string): { pattern: string; scheme: QuantScheme } => ({
  pattern,
  scheme: resolveScheme(scheme),
});

/** Experts, a head of its own and an embedding that is a Gather and a Cast. */
export function expertGraph(stored?: (name: string) => StoredWeight | undefined): Graph {
  const builder = startGraph();
  const weight = (name: string, shape: readonly number[]): WeightSource => {
    const found = stored?.(name);
    return { ...source(`${name}.weight`, shape), ...(found === undefined ? {} : { stored: found }) };
  };
  builder.output(addEmbedding(builder));
  for (const module of [
    'model.layers.0.mlp.experts.0.down_proj',
    'model.layers.0.mlp.shared_experts.down_proj',
    'model.layers.0.mlp.gate',
    'model.layers.0.self_attn.o_proj',
    'lm_head',
  ]) {
    builder.output(addGemm(builder, { module, members: [weight(module, [16, K])] }));
  }
  return builder.build();
}
