import type { Graph, QuantizedLayer, WeightSource } from '../../graph/ir.js';

/** Matrices that vLLM multiplies as one, by the last part of their names: its `packed_modules_mapping`. */
const FUSED: readonly ReadonlySet<string>[] = [
  new Set(['q_proj', 'k_proj', 'v_proj']),
  new Set(['gate_proj', 'up_proj']),
];

/**
 * Modules that engines fuse, `model.layers.0.self_attn` of q_proj, k_proj and v_proj, whose members in this scheme have
 * several tensor scales: those that a checkpoint stores, or those of members it has in several float types.
 */
export function findUnequalScales(graph: Graph, scheme: string): readonly string[] {
  const scales = new Map<string, Set<unknown>>();
  for (const { data } of graph.initializers.values()) {
    if (data.kind !== 'quantized' || data.part !== 'scales' || data.layer.scheme !== scheme) continue;
    for (const member of data.layer.members) {
      const [, parent = '', module = ''] = /^(.*)\.([^.]+)\.weight$/.exec(member.name) ?? [];
      const group = FUSED.findIndex((names) => names.has(module));
      if (group === -1) continue;
      const key = `${parent} ${group}`;
      scales.set(key, (scales.get(key) ?? new Set()).add(scaleOf(data.layer, member)));
    }
  }
  return [...scales].filter(([, each]) => each.size > 1).map(([key]) => key.slice(0, key.lastIndexOf(' ')));
}

/** Equal for members with the same scale. */
function scaleOf({ scheme, scaleGroup }: QuantizedLayer, { name, stored }: WeightSource): unknown {
  if (stored?.scheme === scheme) return stored.parts.scales.value;
  return scaleGroup?.[0]?.name ?? name;
}
