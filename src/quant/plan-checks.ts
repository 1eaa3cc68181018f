import { UserError } from '../errors.js';
import type { Graph } from '../graph/ir.js';
import type { LayerPattern, PatternSubject } from './layer-pattern.js';
import { withoutWeightSuffix } from './linear-layers.js';
import type { LayerMember } from './linear-layers.js';
import { nearestNames } from './nearest.js';
import type { PlanRequest } from './plan.js';
import type { LayerKind, PlanLayer } from './plan-layers.js';
import { NONE, subjectOf } from './plan-rules.js';
import type { IgnoredLayers, PlanRule, Target, Verdict } from './plan-rules.js';

/** The patterns of a request, parsed. */
export interface PlanPatterns {
  readonly ignored: readonly IgnoredLayers[];
  readonly targets: readonly Target[];
}

interface Draft {
  readonly layers: readonly PlanLayer[];
  readonly patterns: PlanPatterns;
  /** The rules without the one about weights that are stored quantized. */
  readonly wanted: readonly PlanRule[];
}

const NEAREST = 3;

/**
 * Finds what a request says in vain or twice.
 * @returns warnings about what has no effect and was not written for this model alone
 * @throws UserError as `makePlan`
 */
export function checkPlan(request: PlanRequest, draft: Draft): readonly string[] {
  const { layers, patterns } = draft;
  const subjects = layers.map(subjectOf);
  for (const { pattern, key, members } of patterns.ignored) {
    if (members.size > 0) continue;
    // Ignoring what is never quantized is no mistake.
    const others = otherSubjects(request.graph, layers);
    if (others.some((subject) => pattern.match(subject).length > 0)) continue;
    throw matchesNothing(pattern, [...subjects, ...others], key);
  }
  for (const { pattern, members } of patterns.targets) {
    if (members.size === 0) throw matchesNothing(pattern, subjects, 'targets');
  }
  requireAsked(request, layers);
  requireAgreement(request, draft);
  const isRequantized = request.requantize === true;
  return [...checkExperts(request, layers), ...(isRequantized ? [] : checkStored(draft))];
}

/** The error for a pattern without effect, with the names most like it. */
export function matchesNothing(
  pattern: LayerPattern,
  subjects: readonly PatternSubject[],
  key: string,
): UserError {
  const names = [...new Set(subjects.flatMap(({ members, layerNames }) => [...members, ...layerNames]))];
  const isShort = /^\w+$/.test(pattern.text);
  const comparable = isShort ? names.map((name) => name.slice(name.lastIndexOf('.') + 1)) : names;
  const nearest = nearestNames(pattern.text.replace(/^re:/, ''), comparable, NEAREST);
  return new UserError(
    'pattern_matches_nothing',
    `Expected every entry of "${key}" to match a layer but ${JSON.stringify(pattern.text)} matches none of ${names.length} names.`,
    { param: key, suggestions: [`The nearest layer names are ${nearest.join(', ')}.`] },
  );
}

/** Tensors that no layer reads. */
function otherSubjects(graph: Graph, layers: readonly PlanLayer[]): readonly PatternSubject[] {
  const found = new Set(layers.flatMap(({ members }) => members.map(({ source }) => source.name)));
  return [...graph.initializers.values()].flatMap(({ data }) =>
    data.kind === 'weight'
      ? data.members
          .filter(({ name }) => !found.has(name))
          .map(({ name }) => ({ members: [withoutWeightSuffix(name)], layerNames: [] }))
      : [],
  );
}

function requireAsked(
  { quantizeLmHead, quantizeEmbeddings }: PlanRequest,
  layers: readonly PlanLayer[],
): void {
  const kinds = new Set(layers.map(({ kind }) => kind));
  const asked = [
    ['lm_head', quantizeLmHead],
    ['embedding', quantizeEmbeddings],
  ] as const;
  const missing = asked.find(
    ([kind, isAsked]) => isAsked === true && !kinds.has(kind) && !kinds.has('tied embedding'),
  );
  if (missing === undefined) return;
  const flag = missing[0] === 'lm_head' ? 'quantize-lm-head' : 'quantize-embeddings';
  throw new UserError('pattern_matches_nothing', `--${flag} has no effect: the model has no ${missing[0]}.`, {
    param: flag,
    suggestions: [`Leave --${flag} out.`],
  });
}

/** Nothing may be both ignored and given a scheme, nor given two. */
function requireAgreement(request: PlanRequest, { layers, patterns }: Draft): void {
  const claims = new Map<LayerMember, ExplicitClaim[]>();
  const add = (members: ReadonlySet<LayerMember>, claim: ExplicitClaim): void => {
    for (const member of members) claims.set(member, [...(claims.get(member) ?? []), claim]);
  };
  for (const { pattern, key, members } of patterns.ignored) {
    add(members, { says: `"${key}" has ${JSON.stringify(pattern.text)}`, scheme: undefined });
  }
  // A target may give the lm_head that a flag asks for another scheme than the rest has.
  const targeted = new Set(patterns.targets.flatMap(({ members }) => [...members]));
  for (const { kind, members } of layers) {
    const asked = new Set(members.filter((member) => !targeted.has(member)));
    for (const claim of askedClaims(request, kind)) add(asked, claim);
  }
  for (const { pattern, scheme, members } of patterns.targets) {
    const says = `"targets" gives ${JSON.stringify(pattern.text)} ${scheme.name}`;
    add(members, { says, scheme: scheme.name });
  }
  for (const [{ name }, [first, ...rest]] of claims) {
    const other = rest.find(({ scheme }) => scheme !== first?.scheme);
    if (first === undefined || other === undefined) continue;
    throw new UserError(
      'invalid_config',
      `Expected one answer for ${name} but ${first.says} and ${other.says}.`,
      {
        param: 'quantization-config',
        suggestions: ['Narrow one of the two down, e.g. to exact layer names.'],
      },
    );
  }
}

interface ExplicitClaim {
  readonly says: string;
  /** undefined: ignored. */
  readonly scheme: string | undefined;
}

function askedClaims(request: PlanRequest, kind: LayerKind): readonly ExplicitClaim[] {
  const scheme = (request.linear?.scheme ?? request.scheme).name;
  const isTied = kind === 'tied embedding';
  const isHead = request.quantizeLmHead === true && (kind === 'lm_head' || isTied);
  const isTable = request.quantizeEmbeddings === true && (kind === 'embedding' || isTied);
  return [
    ...(isHead ? [{ says: '--quantize-lm-head asks for it', scheme }] : []),
    ...(isTable ? [{ says: '--quantize-embeddings asks for it', scheme }] : []),
  ];
}

function checkExperts({ moe }: PlanRequest, layers: readonly PlanLayer[]): readonly string[] {
  if (moe === undefined || layers.some(({ kind }) => kind === 'expert')) return [];
  const message = `${moe.setting} has no effect: the model has no experts.`;
  if (moe.isOptional) return [message];
  throw new UserError('pattern_matches_nothing', message, {
    param: 'quantization-config',
    suggestions: ['Leave the key out; "linear" is about all layers of this model.'],
  });
}

/** A weight that is stored quantized has one scheme, and asking for another one is not a way to get it. */
function checkStored({ layers, patterns, wanted }: Draft): readonly string[] {
  const conflicts: { readonly member: LayerMember; readonly asked: Verdict }[] = [];
  const kept = new Set<string>();
  const keeping = [...patterns.ignored, ...patterns.targets.filter(({ scheme }) => scheme === NONE)];
  for (const layer of layers) {
    for (const member of layer.members) {
      const { stored } = member.source;
      if (stored === undefined) continue;
      const asked = firstVerdict(wanted, layer, member);
      if (asked !== undefined && asked.scheme !== NONE && asked.scheme.name !== stored.scheme) {
        conflicts.push({ member, asked });
      }
      for (const { pattern, members } of keeping) if (members.has(member)) kept.add(pattern.text);
    }
  }
  const [conflict] = conflicts;
  if (conflict !== undefined) throw alreadyQuantized(conflict, conflicts.length);
  return [...kept].map(
    (text) =>
      `${JSON.stringify(text)} is to stay unquantized, but the checkpoint stores it quantized: it is used as stored.`,
  );
}

function firstVerdict(
  rules: readonly PlanRule[],
  layer: PlanLayer,
  member: LayerMember,
): Verdict | undefined {
  for (const rule of rules) {
    const verdict = rule.verdict(layer, member);
    if (verdict !== undefined) return verdict;
  }
  return undefined;
}

function alreadyQuantized(
  { member, asked }: { readonly member: LayerMember; readonly asked: Verdict },
  count: number,
): UserError {
  const { scheme = '', method = '' } = member.source.stored ?? {};
  const more = count > 1 ? ` and ${count - 1} more layers` : '';
  return new UserError(
    'already_quantized',
    `The checkpoint stores ${member.name}${more} as ${scheme} (${method}), but ${asked.scheme.name} was asked for.`,
    {
      param: 'quantization',
      suggestions: [
        'Leave the scheme out: the checkpoint is used as it is stored.',
        'Quantize layers it left in BF16 by name: --quantization-config \'{"targets": {"lm_head": "wint8"}}\'.',
        `Make another checkpoint: fdq convert --requantize --quantization ${asked.scheme.name}.`,
      ],
    },
  );
}
