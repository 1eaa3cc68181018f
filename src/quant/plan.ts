import { UserError } from '../errors.js';
import type { Graph } from '../graph/ir.js';
import { parseLayerPattern } from './layer-pattern.js';
import type { LayerPattern, PatternSubject } from './layer-pattern.js';
import { findLinearLayers, findOtherTensors, withoutWeightSuffix } from './linear-layers.js';
import type { LayerMember, LinearLayer } from './linear-layers.js';
import { nearestNames } from './nearest.js';
import type { QuantScheme } from './scheme.js';
import { unquantized } from './unquantized.js';

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

type Verdict = Pick<LayerDecision, 'scheme' | 'reason'>;

/** One step of the plan: a verdict, or undefined to leave the member to the next rule. */
type Rule = (layer: LinearLayer, member: LayerMember) => Verdict | undefined;

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
  const rules = [...patterns.map(ignoreRule), ...KEPT_BY_DEFAULT.map(defaultRule)];
  const decide = (layer: LinearLayer, member: LayerMember): Verdict => {
    for (const [index, rule] of rules.entries()) {
      const verdict = rule(layer, member);
      if (verdict !== undefined) return numbered(index, verdict);
    }
    return numbered(rules.length, applyScheme(scheme, layer, member));
  };
  const decisions = layers.map((layer) => {
    const members = layer.members.map((member) => ({ name: member.name, ...decide(layer, member) }));
    return [layer.node.name, members] as const;
  });
  return { scheme, decisions: new Map(decisions) };
}

const [NONE] = unquantized.variants;

function ignoreRule(pattern: LayerPattern): Rule {
  return (layer, member) =>
    pattern.match(subjectOf(layer)).includes(member.name)
      ? { scheme: NONE, reason: `${pattern.text} → ignored` }
      : undefined;
}

function defaultRule({ what, pattern }: (typeof KEPT_BY_DEFAULT)[number]): Rule {
  return (layer, member) =>
    [member.name, ...layer.names].some((name) => pattern.test(name))
      ? { scheme: NONE, reason: `${what} → kept as stored by default` }
      : undefined;
}

/** The last rule, for everything no other one decided about. */
function applyScheme(scheme: QuantScheme, layer: LinearLayer, { source }: LayerMember): Verdict {
  if (scheme === NONE) return { scheme, reason: 'no quantization was asked for' };
  const accepted = scheme.accepts(source);
  if (layer.obstacle === undefined && accepted === true) {
    return { scheme, reason: `everything else → ${scheme.name}` };
  }
  return { scheme: NONE, reason: `kept as stored, for ${layer.obstacle ?? `it ${accepted}`}` };
}

function numbered(index: number, { scheme, reason }: Verdict): Verdict {
  return { scheme, reason: `rule ${index + 1}: ${reason}` };
}

function subjectOf(layer: LinearLayer): PatternSubject {
  return { members: layer.members.map(({ name }) => name), layerNames: layer.names };
}

/** Layers, and the tensors that are never quantized: ignoring those is no mistake. */
function listSubjects(graph: Graph, layers: readonly LinearLayer[]): readonly PatternSubject[] {
  const others = findOtherTensors(graph, layers).map((name) => withoutWeightSuffix(name));
  return [...layers.map(subjectOf), ...others.map((name) => ({ members: [name], layerNames: [] }))];
}

function requireMatches(patterns: readonly LayerPattern[], subjects: readonly PatternSubject[]): void {
  const unmatched = patterns.find((pattern) =>
    subjects.every((subject) => pattern.match(subject).length === 0),
  );
  if (unmatched === undefined) return;
  const names = subjects.flatMap(({ members, layerNames }) => [...members, ...layerNames]);
  throw new UserError(
    'pattern_matches_nothing',
    `Expected every entry of "ignore" to match a layer but ${JSON.stringify(unmatched.text)} matches none of ${names.length} names.`,
    {
      param: 'ignore',
      suggestions: [
        `The nearest layer names are ${nearestNames(unmatched.text.replace(/^re:/, ''), names, NEAREST).join(', ')}.`,
      ],
    },
  );
}
