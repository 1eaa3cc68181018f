import { BugError } from '../errors.js';
import type { Graph } from '../graph/ir.js';
import type { QuantizationRequest } from './config.js';
import { parseLayerPattern, parseModulePattern } from './layer-pattern.js';
import type { LayerMember } from './linear-layers.js';
import { checkPlan } from './plan-checks.js';
import type { PlanPatterns } from './plan-checks.js';
import { findPlanLayers } from './plan-layers.js';
import type { LayerKind, PlanLayer } from './plan-layers.js';
import {
  askedRule,
  createMatcher,
  defaultRules,
  ignoreRule,
  overrideRule,
  reachOf,
  restRule,
  storedRule,
  targetRule,
} from './plan-rules.js';
import type { Matcher, PlanRule } from './plan-rules.js';
import type { QuantScheme } from './scheme.js';

/** What a plan is made from; what is absent asks for nothing. */
export type PlanRequest = Partial<Omit<QuantizationRequest, 'name' | 'kvCacheDtype' | 'scheme'>> & {
  /** The float graph. */
  readonly graph: Graph;
  /** What every layer gets that no rule decides about. */
  readonly scheme: QuantScheme;
  /** Weights that lie quantized in the checkpoint are planned like all others; `fdq convert --requantize`. */
  readonly requantize?: boolean;
};

/** What one member of a layer becomes. */
export interface LayerDecision {
  /** Unfused name without `.weight`. */
  readonly name: string;
  readonly kind: LayerKind;
  readonly scheme: QuantScheme;
  /** The rule that decided, and what it says. */
  readonly reason: string;
}

export interface QuantizationPlan {
  readonly layers: readonly PlanLayer[];
  /** In the order they are tried. */
  readonly rules: readonly PlanRule[];
  /** By node name, one decision a member. An embedding tied to a linear layer has the decision of that one. */
  readonly decisions: ReadonlyMap<string, readonly LayerDecision[]>;
  /** Whole sentences about what had no effect. */
  readonly warnings: readonly string[];
}

/**
 * Decides about every member of every linear layer and embedding: weights stored quantized first, then the ignore
 * list, targets, what is asked for or kept by default, the override of experts and that of dense layers, and the
 * scheme for everything else. Members of a fused layer may differ.
 * @throws UserError `pattern_matches_nothing` with the nearest layer names; `invalid_config` for a pattern that is
 *   none and for rules that contradict each other; `already_quantized` for a scheme that a stored weight has not.
 */
export function makePlan(request: PlanRequest): QuantizationPlan {
  const layers = findPlanLayers(request.graph);
  const patterns = readPatterns(request, createMatcher(layers));
  const wanted = makeRules(request, patterns);
  const isStored = layers.some(({ members }) => members.some(({ source }) => source.stored !== undefined));
  const rules = isStored && request.requantize !== true ? [storedRule(), ...wanted] : wanted;
  const warnings = checkPlan(request, { layers, patterns, wanted });
  return { layers, rules, decisions: decideAll(layers, rules), warnings };
}

function readPatterns(request: PlanRequest, match: Matcher): PlanPatterns {
  const { ignore = [], modulesToNotConvert = [], targets = [] } = request;
  const modulesKey = 'modules_to_not_convert';
  const ignored = [
    ...ignore.map((text) => ({ pattern: parseLayerPattern(text, 'ignore'), key: 'ignore' })),
    ...modulesToNotConvert.map((text) => ({
      pattern: parseModulePattern(text, modulesKey),
      key: modulesKey,
    })),
  ];
  return {
    ignored: ignored.map((entry) => ({
      ...entry,
      members: new Set(match(entry.pattern).map(({ member }) => member)),
    })),
    targets: targets.map(({ pattern: text, scheme }) => {
      const pattern = parseLayerPattern(text, 'targets');
      return { pattern, scheme, members: reachOf(match(pattern)) };
    }),
  };
}

function makeRules(request: PlanRequest, { ignored, targets }: PlanPatterns): readonly PlanRule[] {
  const { scheme, linear, moe, quantizeLmHead = false, quantizeEmbeddings = false } = request;
  const asked = { scheme: linear?.scheme ?? scheme, isOtherAsked: quantizeLmHead && quantizeEmbeddings };
  return [
    ...ignored.map(ignoreRule),
    ...targets.map(targetRule),
    ...(quantizeLmHead ? [askedRule('lm_head', '--quantize-lm-head', asked)] : []),
    ...(quantizeEmbeddings ? [askedRule('embedding', '--quantize-embeddings', asked)] : []),
    ...defaultRules(),
    ...(moe === undefined ? [] : [overrideRule('experts', moe)]),
    ...(linear === undefined ? [] : [overrideRule('dense layers', linear)]),
    restRule(scheme),
  ];
}

function decideAll(
  layers: readonly PlanLayer[],
  rules: readonly PlanRule[],
): ReadonlyMap<string, readonly LayerDecision[]> {
  const about = createRuleIndex(rules);
  const decisions = new Map<string, readonly LayerDecision[]>();
  for (const layer of layers) {
    const members = layer.members.map((member) => {
      const { name } = member;
      for (const index of about(member)) {
        const verdict = rules[index]?.verdict(layer, member);
        if (verdict === undefined) continue;
        const { scheme, reason } = verdict;
        return { name, kind: layer.kind, scheme, reason: `rule ${index + 1}: ${reason}` };
      }
      throw new BugError(`no rule of the plan decides about ${name}`);
    });
    for (const node of layer.nodes) decisions.set(node, members);
  }
  return decisions;
}

/** The rules that may say something about a member, in order: a plan may have as many rules as layers. */
function createRuleIndex(rules: readonly PlanRule[]): (member: LayerMember) => readonly number[] {
  const open: number[] = [];
  const named = new Map<LayerMember, number[]>();
  for (const [index, { members }] of rules.entries()) {
    if (members === undefined) open.push(index);
    else for (const member of members) named.set(member, [...(named.get(member) ?? []), index]);
  }
  return (member) => [...open, ...(named.get(member) ?? [])].sort((a, b) => a - b);
}
