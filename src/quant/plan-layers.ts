import type { Graph } from '../graph/ir.js';
import { findEmbeddings } from './embeddings.js';
import { findLinearLayers } from './linear-layers.js';
import type { LayerMember, LinearLayer } from './linear-layers.js';

export const LAYER_KINDS = [
  'linear',
  'expert',
  'embedding',
  'lm_head',
  /** One tensor that is both. */
  'tied embedding',
  'router',
  'shared-expert gate',
  'norm',
] as const;

/** What a matrix is for, which decides about its scheme where no rule names it. */
export type LayerKind = (typeof LAYER_KINDS)[number];

/** A linear layer or an embedding table: what a plan decides about. */
export interface PlanLayer {
  /** Names of the graph nodes that read it: of the layer itself, then of embeddings tied to it. */
  readonly nodes: readonly [string, ...string[]];
  readonly kind: LayerKind;
  readonly members: readonly LayerMember[];
  /** Names of the layer as a whole. */
  readonly names: readonly string[];
  /** Why it cannot be quantized, whatever the scheme. */
  readonly obstacle: string | undefined;
}

/** Kinds that names tell, in the order they are tried; everything else is `linear`. */
const KINDS: readonly { readonly kind: LayerKind; readonly pattern: RegExp }[] = [
  { kind: 'embedding', pattern: /(?:^|\.)(?:embed_tokens|embed_in|word_embeddings|wte|wpe)$/ },
  { kind: 'lm_head', pattern: /(?:^|\.)(?:lm_head|embed_out)$/ },
  { kind: 'norm', pattern: /(?:^|[._])(?:layer)?norm\d*$/ },
  { kind: 'shared-expert gate', pattern: /(?:^|\.)shared_expert_gate$/ },
  { kind: 'router', pattern: /(?:^|\.)(?:mlp|moe|block_sparse_moe|feed_forward)\.(?:gate|router)$/ },
  { kind: 'expert', pattern: /(?:^|\.)(?:experts(?:\.|$)|block_sparse_moe\.(?:in|out)put_linear$)/ },
];

/**
 * Everything a plan decides about, in graph order. An embedding tied to a linear layer is part of that one: the
 * tensor is one object.
 */
export function findPlanLayers(graph: Graph): readonly PlanLayer[] {
  const linear = findLinearLayers(graph);
  const linearWeights = new Set(linear.map(({ weight }) => weight.name));
  const tables = findEmbeddings(graph);
  const free = tables
    .filter(({ weight }) => !linearWeights.has(weight.name))
    .map(({ node, members, names, obstacle }): PlanLayer => ({
      nodes: [node.name],
      kind: 'embedding',
      members,
      names,
      obstacle,
    }));
  const layers = linear.map((layer): PlanLayer => {
    const tied = tables.filter(({ weight }) => weight.name === layer.weight.name);
    return {
      nodes: [layer.node.name, ...tied.map(({ node }) => node.name)],
      kind: tied.length > 0 ? 'tied embedding' : kindOf(layer),
      members: layer.members,
      names: [...new Set([...layer.names, ...tied.flatMap(({ names }) => names)])],
      obstacle: layer.obstacle ?? tied.find(({ obstacle }) => obstacle !== undefined)?.obstacle,
    };
  });
  const order = new Map(graph.nodes.map(({ name }, index) => [name, index]));
  return [...free, ...layers].sort((a, b) => (order.get(a.nodes[0]) ?? 0) - (order.get(b.nodes[0]) ?? 0));
}

function kindOf({ members, names }: LinearLayer): LayerKind {
  return kindOfNames([...members.map(({ name }) => name), ...names]);
}

/** What the names of a linear layer say that it is for. */
export function kindOfNames(names: readonly string[]): LayerKind {
  return KINDS.find(({ pattern }) => names.some((name) => pattern.test(name)))?.kind ?? 'linear';
}
