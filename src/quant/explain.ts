import { parseLayerPattern } from './layer-pattern.js';
import type { LayerMember } from './linear-layers.js';
import type { QuantizationPlan } from './plan.js';
import { matchesNothing } from './plan-checks.js';
import type { LayerKind, PlanLayer } from './plan-layers.js';
import { createMatcher, subjectOf } from './plan-rules.js';

/** One rule as it looks from one layer. */
export interface RuleVerdict {
  /** `rule 2: ignore re:.*o_proj` */
  readonly rule: string;
  /** What the rule would give the layer; undefined where it is about others. */
  readonly scheme: string | undefined;
  /** Why, in the rule's words. */
  readonly reason: string | undefined;
  /** It is the rule that decided. */
  readonly isDecisive: boolean;
}

export interface LayerExplanation {
  /** Unfused name without `.weight`. */
  readonly name: string;
  readonly kind: LayerKind;
  /** Every rule of the plan, in order. */
  readonly rules: readonly RuleVerdict[];
}

/**
 * What every rule of a plan says about the layers that a name or pattern means.
 * @param text as an entry of `ignore`; see `parseLayerPattern`
 * @throws UserError `pattern_matches_nothing` with the nearest names
 */
export function explainLayer(plan: QuantizationPlan, text: string): readonly LayerExplanation[] {
  const pattern = parseLayerPattern(text, 'explain');
  const matches = createMatcher(plan.layers)(pattern);
  if (matches.length === 0) throw matchesNothing(pattern, plan.layers.map(subjectOf), 'explain');
  return matches.map(({ layer, member }) => explainMember(plan, layer, member));
}

function explainMember(plan: QuantizationPlan, layer: PlanLayer, member: LayerMember): LayerExplanation {
  const verdicts = plan.rules.map((rule) => rule.verdict(layer, member));
  const decisive = verdicts.findIndex((verdict) => verdict !== undefined);
  return {
    name: member.name,
    kind: layer.kind,
    rules: plan.rules.map(({ text }, index) => ({
      rule: `rule ${index + 1}: ${text}`,
      scheme: verdicts[index]?.scheme.name,
      reason: verdicts[index]?.reason,
      isDecisive: index === decisive,
    })),
  };
}
