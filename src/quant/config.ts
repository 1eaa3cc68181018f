import { UnsupportedError, UserError } from '../errors.js';
import { readConfigFields } from './config-keys.js';
import type { ConfigFields } from './config-keys.js';
import { parseKvCacheType } from './kv-cache-type.js';
import type { KvCacheType } from './kv-cache-type.js';
import { resolveScheme } from './registry.js';
import { chooseScheme } from './scheme-choice.js';
import type { SchemeChoice } from './scheme-choice.js';
import type { QuantScheme } from './scheme.js';

/** What the user asked for, checked: all of it that can be known without the model. */
export interface QuantizationRequest {
  /** For ready lines and metrics: a canonical scheme name, or `mix_quant` where layers get different ones. */
  readonly name: string;
  /** What a layer gets that nothing else decides about. */
  readonly scheme: QuantScheme;
  /** What linear layers get that are not experts; absent: `scheme`. */
  readonly linear?: SchemeOverride;
  /** What experts get; absent: `scheme`. */
  readonly moe?: SchemeOverride;
  /** Layers to leave as stored; see `parseLayerPattern`. */
  readonly ignore: readonly string[];
  /** The same as FastDeploy means it; see `parseModulePattern`. */
  readonly modulesToNotConvert: readonly string[];
  /** Layers that get a scheme of their own. */
  readonly targets: readonly SchemeTarget[];
  readonly quantizeLmHead: boolean;
  readonly quantizeEmbeddings: boolean;
  /** `auto` unless a flag, a key or the C part of a precision name says more. */
  readonly kvCacheDtype: KvCacheType;
}

export interface SchemeOverride {
  readonly scheme: QuantScheme;
  /** The setting that says so, for messages. */
  readonly setting: string;
  /** Written for models of both kinds: it may have no effect. */
  readonly isOptional: boolean;
}

export interface SchemeTarget {
  readonly pattern: string;
  readonly scheme: QuantScheme;
}

export interface QuantizationInputs {
  /** `--quantization`: a scheme or precision name, or a JSON object as text. */
  readonly quantization?: string | undefined;
  /** `--quantization-config`, parsed. */
  readonly config?: Readonly<Record<string, unknown>> | undefined;
  readonly quantizeLmHead?: boolean | undefined;
  readonly quantizeEmbeddings?: boolean | undefined;
  /** `--kv-cache-dtype`; `auto` leaves it to the others. */
  readonly kvCacheDtype?: KvCacheType | undefined;
  /** The weights are written to files, not served: every scheme may be chosen. */
  readonly offline?: boolean | undefined;
}

/** One place where a setting is made. */
interface Claim<T> {
  readonly value: T;
  /** How messages name the place. */
  readonly setting: string;
}

interface Source {
  readonly fields: ConfigFields;
  readonly flag: string;
}

/** Names that leave every choice to the keys beside them. */
const PLAN_NAMES: ReadonlyMap<string, string> = new Map([
  ['mix_quant', 'mix_quant'],
  ['mixquant', 'mix_quant'],
  ['online', 'online'],
]);

const FLAG = '--quantization';
const CONFIG_FLAG = '--quantization-config';

/**
 * Everything the flags say about quantization as one request. Lists add up; two settings that disagree are an
 * error. Without a scheme nothing is quantized.
 * @throws UserError `unknown_scheme`; `invalid_config` for text that is no JSON, an unknown key (with the
 *   nearest), a wrong type or a contradiction; UnsupportedError for what other programs have and fdq has not.
 */
export function parseQuantization(inputs: QuantizationInputs): QuantizationRequest {
  const sources: readonly Source[] = [
    { fields: inputs.quantization === undefined ? {} : readFlag(inputs.quantization), flag: FLAG },
    {
      fields: inputs.config === undefined ? {} : readConfigFields(inputs.config, CONFIG_FLAG),
      flag: CONFIG_FLAG,
    },
  ];
  const offline = inputs.offline ?? false;
  const base = readBase(sources, offline);
  const isOptional = base.plan === 'mix_quant';
  const linear = readOverride(sources, LINEAR_KEYS, { offline, isOptional });
  const moe = readOverride(sources, MOE_KEYS, { offline, isOptional });
  const targets = readTargets(sources, offline);
  requireChoice(base, { linear, moe, targets });
  const request = {
    scheme: base.scheme,
    ...(linear === undefined ? {} : { linear }),
    ...(moe === undefined ? {} : { moe }),
    ignore: sources.flatMap(({ fields }) => fields.ignore ?? []),
    modulesToNotConvert: sources.flatMap(({ fields }) => fields.modules_to_not_convert ?? []),
    targets,
    quantizeLmHead: readSwitch(sources, 'quantize_lm_head', inputs.quantizeLmHead),
    quantizeEmbeddings: readSwitch(sources, 'quantize_embeddings', inputs.quantizeEmbeddings),
    kvCacheDtype: readKvCacheType(sources, base, inputs.kvCacheDtype),
  };
  requireSchemeOfHead(request);
  return { name: nameOf(request), ...request };
}

function readFlag(text: string): ConfigFields {
  if (!text.trimStart().startsWith('{')) return { quantization: text };
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new UserError(
      'invalid_config',
      `Expected ${FLAG} to be a scheme, a precision name or a JSON object but received ${text}.`,
      {
        param: 'quantization',
        suggestions: [
          'Quote the object for the shell: \'{"quantization": "wint8", "ignore": ["re:.*o_proj"]}\'.',
        ],
        cause,
      },
    );
  }
  return readConfigFields(value, FLAG);
}

interface Base extends SchemeChoice {
  /** `mix_quant` or `online`; undefined for a scheme. */
  readonly plan: string | undefined;
  /** Where the KV cache part of the name was given. */
  readonly setting: string;
}

function readBase(sources: readonly Source[], offline: boolean): Base {
  const claims = sources.flatMap(({ fields: { quantization }, flag }): Claim<Base>[] => {
    if (quantization === undefined) return [];
    const plan = PLAN_NAMES.get(quantization.trim().toLowerCase());
    const choice = plan === undefined ? chooseScheme(quantization, offline) : { scheme: NONE };
    return [{ value: { ...choice, plan, setting: `${flag} ${quantization}` }, setting: flag }];
  });
  const nameOfBase = ({ plan, scheme, kvCache }: Base): string =>
    `${plan ?? scheme.name}${kvCache === undefined ? '' : ` with a KV cache of ${kvCache}`}`;
  return (
    requireOne(claims, 'scheme', nameOfBase) ?? {
      scheme: NONE,
      plan: undefined,
      setting: FLAG,
    }
  );
}

const NONE = resolveScheme('none');

const LINEAR_KEYS = ['linear', 'linear_scheme_override', 'dense_quant_type'] as const;
const MOE_KEYS = ['moe', 'moe_scheme_override', 'moe_quant_type'] as const;

function readOverride(
  sources: readonly Source[],
  keys: typeof LINEAR_KEYS | typeof MOE_KEYS,
  { offline, isOptional }: { readonly offline: boolean; readonly isOptional: boolean },
): SchemeOverride | undefined {
  const claims = sources.flatMap(({ fields, flag }) =>
    keys.flatMap((key): Claim<QuantScheme>[] => {
      const text = fields[key];
      if (text === undefined) return [];
      const setting = `"${key}" of ${flag}`;
      return [{ value: chooseLayerScheme(text, setting, offline), setting }];
    }),
  );
  const scheme = requireOne(claims, 'scheme', ({ name }) => name);
  if (scheme === undefined) return undefined;
  return { scheme, setting: (claims[0] as Claim<QuantScheme>).setting, isOptional };
}

function readTargets(sources: readonly Source[], offline: boolean): readonly SchemeTarget[] {
  const targets = new Map<string, Claim<QuantScheme>>();
  for (const { fields, flag } of sources) {
    for (const [pattern, text] of Object.entries(fields.targets ?? {})) {
      const setting = `"targets" of ${flag} for ${JSON.stringify(pattern)}`;
      const claim = { value: chooseLayerScheme(text, setting, offline), setting };
      const before = targets.get(pattern);
      requireOne(before === undefined ? [claim] : [before, claim], 'scheme', ({ name }) => name);
      targets.set(pattern, claim);
    }
  }
  return [...targets].map(([pattern, { value }]) => ({ pattern, scheme: value }));
}

/** The KV cache has one type for all layers, so a layer's name cannot hold one. */
function chooseLayerScheme(text: string, setting: string, offline: boolean): QuantScheme {
  try {
    const { scheme, kvCache } = chooseScheme(text, offline);
    if (kvCache === undefined) return scheme;
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    const Kind = error instanceof UnsupportedError ? UnsupportedError : UserError;
    throw new Kind(error.code, `In ${setting}: ${error.message}`, {
      param: 'quantization-config',
      suggestions: error.suggestions,
      cause: error,
    });
  }
  throw new UserError(
    'invalid_config',
    `Expected ${setting} to be about weights and activations but ${text} has a KV cache part.`,
    {
      param: 'quantization-config',
      suggestions: [`Write ${text.replace(/c[^:]*/i, '')} there, and "kv_cache_quant_type" for the cache.`],
    },
  );
}

function readSwitch(
  sources: readonly Source[],
  key: 'quantize_lm_head' | 'quantize_embeddings',
  flag: boolean | undefined,
): boolean {
  const claims: Claim<boolean>[] = sources.flatMap(({ fields, flag: setting }) => {
    const value = fields[key];
    return value === undefined ? [] : [{ value, setting: `"${key}" of ${setting}` }];
  });
  if (flag !== undefined) claims.unshift({ value: flag, setting: `--${key.replaceAll('_', '-')}` });
  return requireOne(claims, 'answer', String) ?? false;
}

function readKvCacheType(
  sources: readonly Source[],
  { kvCache, setting }: Base,
  flag: KvCacheType | undefined,
): KvCacheType {
  const claims: Claim<KvCacheType>[] = [
    ...(flag === undefined ? [] : [{ value: flag, setting: '--kv-cache-dtype' }]),
    ...(kvCache === undefined ? [] : [{ value: kvCache, setting }]),
    ...sources.flatMap(({ fields: { kv_cache_quant_type: text }, flag: source }) => {
      if (text === undefined) return [];
      const place = `"kv_cache_quant_type" of ${source}`;
      return [{ value: parseKvCacheType(text, place), setting: place }];
    }),
  ];
  const said = claims.filter(({ value }) => value !== 'auto');
  return requireOne(said, 'KV cache type', String) ?? 'auto';
}

/** The value all claims agree on; undefined without any. */
function requireOne<T>(
  claims: readonly Claim<T>[],
  what: string,
  describe: (value: T) => string,
): T | undefined {
  const [first] = claims;
  if (first === undefined) return undefined;
  const other = claims.find(({ value }) => describe(value) !== describe(first.value));
  if (other === undefined) return first.value;
  throw new UserError(
    'invalid_config',
    `Expected one ${what} but ${first.setting} says ${describe(first.value)} and ${other.setting} says ${describe(other.value)}.`,
    { param: 'quantization', suggestions: [`Say it in one of the two places.`] },
  );
}

type Rules = Pick<QuantizationRequest, 'linear' | 'moe' | 'targets'>;

/** `mix_quant` and `online` say nothing by themselves. */
function requireChoice(
  { plan }: Base,
  { linear, moe, targets }: { [K in keyof Rules]: Rules[K] | undefined },
): void {
  if (plan === undefined || linear !== undefined || moe !== undefined || (targets?.length ?? 0) > 0) return;
  throw new UserError(
    'invalid_config',
    `${FLAG} ${plan} leaves the schemes to the keys beside it, but none is given.`,
    {
      param: 'quantization',
      suggestions: [
        'Write {"quantization": "mix_quant", "dense_quant_type": "wint8", "moe_quant_type": "wint4"}.',
      ],
    },
  );
}

function requireSchemeOfHead({
  scheme,
  linear,
  quantizeLmHead,
  quantizeEmbeddings,
}: Omit<QuantizationRequest, 'name'>): void {
  if ((!quantizeLmHead && !quantizeEmbeddings) || (linear?.scheme ?? scheme) !== NONE) return;
  const [flag, layer] = quantizeLmHead
    ? ['--quantize-lm-head', 'lm_head']
    : ['--quantize-embeddings', 'model.embed_tokens'];
  throw new UserError('invalid_config', `${flag} is set, but nothing says which scheme to use for it.`, {
    param: flag.slice(2),
    suggestions: [
      'Name one with --quantization.',
      `Or leave --${flag.slice(2)} out and give this layer alone a scheme: --quantization-config '{"targets": {"${layer}": "wint8"}}'.`,
    ],
  });
}

function nameOf({ scheme, linear, moe, targets }: Omit<QuantizationRequest, 'name'>): string {
  const schemes = [linear, moe, ...targets].flatMap((rule) => (rule === undefined ? [] : [rule.scheme]));
  const names = new Set([scheme, ...schemes].map(({ name }) => name));
  if (linear !== undefined && linear.scheme === moe?.scheme && targets.length === 0)
    return linear.scheme.name;
  return names.size === 1 ? scheme.name : 'mix_quant';
}
