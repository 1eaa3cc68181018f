import { UnsupportedError } from '../errors.js';
import type { StoredWeight } from '../graph/ir.js';
import type { SchemeOverride } from './config.js';
import type { LayerPattern, PatternSubject } from './layer-pattern.js';
import type { LayerMember } from './linear-layers.js';
import type { LayerKind, PlanLayer } from './plan-layers.js';
import { resolveScheme } from './registry.js';
import type { QuantScheme } from './scheme.js';
import { schemeOfStored } from './stored-scheme.js';

/** What a rule says about a member, and why. */
export interface Verdict {
  readonly scheme: QuantScheme;
  readonly reason: string;
}

/** One step of a plan; the first one with a verdict decides. */
export interface PlanRule {
  /** What it is about, e.g. `ignore re:.*o_proj`. */
  readonly text: string;
  /** The only members it says something about; absent: any. */
  readonly members?: ReadonlySet<LayerMember>;
  /** undefined leaves the member to the next rule. */
  verdict(layer: PlanLayer, member: LayerMember): Verdict | undefined;
}

/** An entry of `ignore` or `modules_to_not_convert`. */
export interface IgnoredLayers {
  readonly pattern: LayerPattern;
  /** Where it was given. */
  readonly key: string;
  readonly members: ReadonlySet<LayerMember>;
}

/** A pattern of `targets` with its scheme. */
export interface Target {
  readonly pattern: LayerPattern;
  readonly scheme: QuantScheme;
  /** The members it decides about; see `reachOf`. */
  readonly members: ReadonlySet<LayerMember>;
}

interface Match {
  readonly layer: PlanLayer;
  readonly member: LayerMember;
}

/** Finds what a pattern means. */
export type Matcher = (pattern: LayerPattern) => readonly Match[];

export const NONE = resolveScheme('none');

/** Kinds that stay as stored in every architecture, unless they are asked for. */
const KEPT_BY_DEFAULT: readonly { readonly what: string; readonly kinds: readonly LayerKind[] }[] = [
  { what: 'embeddings', kinds: ['embedding', 'tied embedding'] },
  { what: 'lm_head', kinds: ['lm_head'] },
  { what: 'norms', kinds: ['norm'] },
  { what: 'shared-expert gates', kinds: ['shared-expert gate'] },
  { what: 'routers', kinds: ['router'] },
];

export function subjectOf(layer: PlanLayer): PatternSubject {
  return { members: layer.members.map(({ name }) => name), layerNames: layer.names };
}

/** A plan may have as many patterns as layers, so full names are looked up. */
export function createMatcher(layers: readonly PlanLayer[]): Matcher {
  const byName = new Map<string, PlanLayer[]>();
  for (const layer of layers) {
    for (const name of new Set([...layer.names, ...layer.members.map((member) => member.name)])) {
      byName.set(name, [...(byName.get(name) ?? []), layer]);
    }
  }
  return (pattern) => {
    const candidates = pattern.fullName === undefined ? layers : (byName.get(pattern.fullName) ?? []);
    return candidates.flatMap((layer) => {
      const names = pattern.match(subjectOf(layer));
      return layer.members.filter(({ name }) => names.includes(name)).map((member) => ({ layer, member }));
    });
  };
}

/**
 * The members a target decides about. `re:.*` does not mean the routers too: what is kept by default is reached only
 * by a pattern that means nothing else.
 */
export function reachOf(matches: readonly Match[]): ReadonlySet<LayerMember> {
  const free = matches.filter(({ layer }) => !isKeptByDefault(layer));
  return new Set((free.length > 0 ? free : matches).map(({ member }) => member));
}

function isKeptByDefault({ kind }: PlanLayer): boolean {
  return KEPT_BY_DEFAULT.some(({ kinds }) => kinds.includes(kind));
}

/** Weights that lie quantized in the checkpoint are used as they lie there. */
export function storedRule(): PlanRule {
  return {
    text: "the checkpoint's quantization_config",
    verdict: (layer, { source: { stored } }) =>
      stored === undefined ? undefined : storedVerdict(layer, stored),
  };
}

function storedVerdict({ names, obstacle }: PlanLayer, stored: StoredWeight): Verdict {
  const { method, scheme } = stored;
  if (obstacle !== undefined) {
    throw new UnsupportedError(
      'unsupported_model',
      `The layer ${names[0]} is stored quantized (${method}) and cannot be computed so: ${obstacle}.`,
      { param: names[0] ?? '', suggestions: ['Take the checkpoint in BF16.'] },
    );
  }
  return { scheme: schemeOfStored(stored), reason: `stored as ${scheme} by the checkpoint (${method})` };
}

export function ignoreRule({ pattern, key, members }: IgnoredLayers): PlanRule {
  return {
    text: `${key} ${pattern.text}`,
    members,
    verdict: (_, member) =>
      members.has(member) ? { scheme: NONE, reason: `${pattern.text} → ignored` } : undefined,
  };
}

export function targetRule({ pattern, scheme, members }: Target): PlanRule {
  return {
    text: `targets ${pattern.text}`,
    members,
    verdict: (layer, member) =>
      members.has(member) ? applyScheme(scheme, layer, { member, why: `target ${pattern.text}` }) : undefined,
  };
}

/** `--quantize-lm-head` or `--quantize-embeddings`: what is tied to the one that is asked for comes with it. */
export function askedRule(
  asked: 'lm_head' | 'embedding',
  flag: string,
  { scheme, isOtherAsked }: { readonly scheme: QuantScheme; readonly isOtherAsked: boolean },
): PlanRule {
  const tied = `${flag}, and one tensor is both lm_head and embedding`;
  return {
    text: flag,
    verdict: (layer, member) => {
      if (layer.kind !== asked && layer.kind !== 'tied embedding') return undefined;
      const why = layer.kind === asked || isOtherAsked ? flag : tied;
      return applyScheme(scheme, layer, { member, why });
    },
  };
}

export function defaultRules(): readonly PlanRule[] {
  return KEPT_BY_DEFAULT.map(({ what, kinds }) => ({
    text: what,
    verdict: ({ kind }) =>
      kinds.includes(kind) ? { scheme: NONE, reason: `${what} → kept as stored by default` } : undefined,
  }));
}

/** `moe` for experts, `linear` for all other linear layers. */
export function overrideRule(
  what: 'experts' | 'dense layers',
  { scheme, setting }: SchemeOverride,
): PlanRule {
  return {
    text: setting,
    verdict: (layer, member) =>
      (layer.kind === 'expert') === (what === 'experts')
        ? applyScheme(scheme, layer, { member, why: what })
        : undefined,
  };
}

/** The last rule, for everything no other one decided about. */
export function restRule(scheme: QuantScheme): PlanRule {
  return {
    text: 'everything else',
    verdict: (layer, member) =>
      scheme === NONE
        ? { scheme, reason: 'no quantization was asked for' }
        : applyScheme(scheme, layer, { member, why: 'everything else' }),
  };
}

/** The scheme where it can be had, else the reason why not. */
function applyScheme(
  scheme: QuantScheme,
  layer: PlanLayer,
  { member, why }: { readonly member: LayerMember; readonly why: string },
): Verdict {
  const accepted = layer.obstacle === undefined ? scheme.accepts(member.source) : true;
  if (layer.obstacle === undefined && accepted === true) return { scheme, reason: `${why} → ${scheme.name}` };
  return { scheme: NONE, reason: `kept as stored, for ${layer.obstacle ?? `it ${accepted}`}` };
}
