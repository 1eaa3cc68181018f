import { BugError, UserError } from '../errors.js';
import type { Graph } from '../graph/ir.js';
import { parseLayerPattern } from './layer-pattern.js';
import type { LayerPattern, PatternSubject } from './layer-pattern.js';
import { findLinearLayers, findOtherTensors, withoutWeightSuffix } from './linear-layers.js';
import type { LayerMember, LinearLayer } from './linear-layers.js';
import { nearestNames } from './nearest.js';
import { SCHEMES } from './registry.js';
import type { QuantScheme } from './scheme.js';

export interface PlanRequest {
  /** The float graph. */
  readonly graph: Graph;
  /** What every layer gets that no rule keeps. */
  readonly scheme: QuantScheme;
  /** Layers to leave as stored, see `parseLayerPattern`. */
  readonly ignore?: readonly string[];
}

/** What one member of a linear layer becomes. */
export interface LayerDecision {
  /** Unfused name without `.weight`. */
  readonly name: string;
  readonly scheme: QuantScheme;
  /** The rule that decided, and what it says. */
  readonly reason: string;
}

export interface QuantizationPlan {
  readonly scheme: QuantScheme;
  /** By node name, one decision a member. */
  readonly decisions: ReadonlyMap<string, readonly LayerDecision[]>;
}

/** One step of the plan; the first that answers decides. */
interface Rule {
  /** The scheme of a layer and why, or undefined to leave it to the next rule. */
  decide(layer: LinearLayer, member: LayerMember): Pick<LayerDecision, 'scheme' | 'reason'> | undefined;
}

/** Layers left as stored in every architecture, by the name of the layer. */
const KEPT_BY_DEFAULT: readonly { readonly what: string; readonly pattern: RegExp }[] = [
  { what: 'embeddings', pattern: /(?:^|\.)(?:embed_tokens|embed_in|word_embeddings|wte|wpe)$/ },
  { what: 'lm_head', pattern: /(?:^|\.)(?:lm_head|embed_out)$/ },
  { what: 'norms', pattern: /(?:^|[._])(?:layer)?norm\d*$/ },
  { what: 'shared-expert gates', pattern: /(?:^|\.)shared_expert_gate$/ },
  { what: 'routers', pattern: /(?:^|\.)(?:mlp|moe|block_sparse_moe|feed_forward)\.(?:gate|router)$/ },
];

const NEAREST = 3;

/**
 * Decides about every member of every linear layer: first the ignore list, then what is kept by default, then
 * the scheme. Members of a fused layer may differ.
 * @throws UserError `pattern_matches_nothing` with the nearest layer names, `invalid_config` for a pattern that
 *   is none.
 */
export function makePlan({ graph, scheme, ignore = [] }: PlanRequest): QuantizationPlan {
  const layers = findLinearLayers(graph);
  const patterns = ignore.map((text) => parseLayerPattern(text));
  requireMatches(patterns, listSubjects(graph, layers));
  const rules = createRules(patterns, scheme);
  const decisions = layers.map((layer) => {
    const members = layer.members.map((member): LayerDecision => ({
      name: member.name,
      ...decide(rules, layer, member),
    }));
    return [layer.node.name, members] as const;
  });
  return { scheme, decisions: new Map(decisions) };
}

function createRules(patterns: readonly LayerPattern[], scheme: QuantScheme): readonly Rule[] {
  const unquantized = SCHEMES.find(({ name }) => name === 'none');
  if (unquantized === undefined) throw new BugError('there is no scheme "none"');
  const keep = (reason: string) => ({ scheme: unquantized, reason });
  const rule = (index: number): string => `rule ${index + 1}:`;
  const ignored = patterns.map((pattern, index): Rule => ({
    decide: (layer, member) =>
      pattern.matches(subjectOf(layer, member))
        ? keep(`${rule(index)} ${pattern.text} → ignored`)
        : undefined,
  }));
  const kept = KEPT_BY_DEFAULT.map(({ what, pattern }, index): Rule => ({
    decide: (layer, member) =>
      [member.name, ...layer.names].some((name) => pattern.test(name))
        ? keep(`${rule(patterns.length + index)} ${what} → kept as stored by default`)
        : undefined,
  }));
  const last = rule(patterns.length + KEPT_BY_DEFAULT.length);
  const everythingElse: Rule = {
    decide: (layer, { source }) => {
      if (scheme === unquantized) return keep(`${last} no quantization was asked for`);
      const obstacle = layer.obstacle ?? scheme.accepts(source);
      if (obstacle === true) return { scheme, reason: `${last} everything else → ${scheme.name}` };
      return keep(`${last} kept as stored, for ${layer.obstacle ?? `it ${obstacle}`}`);
    },
  };
  return [...ignored, ...kept, everythingElse];
}

function decide(
  rules: readonly Rule[],
  layer: LinearLayer,
  member: LayerMember,
): Pick<LayerDecision, 'scheme' | 'reason'> {
  for (const rule of rules) {
    const decision = rule.decide(layer, member);
    if (decision !== undefined) return decision;
  }
  throw new BugError(`no rule decides about ${member.name}`);
}

function subjectOf(layer: LinearLayer, member: LayerMember): PatternSubject {
  return { name: member.name, layerNames: layer.names };
}

/** Layers, and the tensors that are never quantized: ignoring those is no mistake. */
function listSubjects(graph: Graph, layers: readonly LinearLayer[]): readonly PatternSubject[] {
  const others = findOtherTensors(graph, layers).map((name) => ({
    name: withoutWeightSuffix(name),
    layerNames: [],
  }));
  return [...layers.flatMap((layer) => layer.members.map((member) => subjectOf(layer, member))), ...others];
}

function requireMatches(patterns: readonly LayerPattern[], subjects: readonly PatternSubject[]): void {
  const unmatched = patterns.find((pattern) => !subjects.some((subject) => pattern.matches(subject)));
  if (unmatched === undefined) return;
  const names = subjects.flatMap(({ name, layerNames }) => [name, ...layerNames]);
  throw new UserError(
    'pattern_matches_nothing',
    `Expected every entry of "ignore" to match a layer but ${JSON.stringify(unmatched.text)} matches none of ${subjects.length}.`,
    {
      param: 'ignore',
      suggestions: [
        `The nearest layer names are ${nearestNames(unmatched.text.replace(/^re:/, ''), names, NEAREST).join(', ')}.`,
      ],
    },
  );
}
