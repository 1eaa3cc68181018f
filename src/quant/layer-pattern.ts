import { UserError } from '../errors.js';
import { WEIGHT_SUFFIX, withoutWeightSuffix } from './linear-layers.js';

/** A linear layer, or a tensor that stands alone. */
export interface PatternSubject {
  /** Unfused names, without `.weight`. */
  readonly members: readonly string[];
  /** Names of the layer as a whole, and of its place in the graph. */
  readonly layerNames: readonly string[];
}

export interface LayerPattern {
  /** As the user wrote it. */
  readonly text: string;
  /** Set where only layers of this very name can match: a full name, without `.weight`. */
  readonly fullName?: string;
  /** The members it means. */
  match(subject: PatternSubject): readonly string[];
}

const REGEX_PREFIX = 're:';
/** Patterns that say what a name must not hold; see `createTest`. */
const NEGATION = /\(\?<?!|\[!|\[\^/;
const GLOB = /[*?[]/;

/**
 * The layers a rule is about, in vLLM's notation: an exact name, a shell glob (`*`, `?`, `[abc]`, `[!abc]`; `*`
 * spans dots), or `re:` and a regular expression that has to match at the start of the name. Names are
 * unfused, with or without `.weight`; a fused name (`qkv_proj`) means all its members. Own names come first:
 * `re:.*up_proj` means up_proj alone although `gate_up_proj` matches too. An exact name without dots also means every
 * layer of which it is the last part.
 * @param key where the pattern was given, for messages: `ignore`
 * @throws UserError `invalid_config` for an invalid regular expression or an empty pattern.
 */
export function parseLayerPattern(text: string, key: string): LayerPattern {
  if (text.startsWith(REGEX_PREFIX)) {
    return createTest(text, compile(text, `^(?:${text.slice(REGEX_PREFIX.length)})`, key));
  }
  requireText(text, key);
  if (GLOB.test(text)) return createTest(text, compile(text, `^${globSource(text)}$`, key));
  const pattern = createPattern(text, (name) => isNamed(name, text));
  return text.includes('.') ? { ...pattern, fullName: withoutWeightSuffix(text) } : pattern;
}

/**
 * An entry of `modules_to_not_convert`: a module as FastDeploy and transformers mean it, so that everything below
 * it is meant too. The path or glob may leave out the modules above it: `self_attn` means every layer of every
 * attention. `re:` is as in `parseLayerPattern`.
 * @throws UserError `invalid_config` as `parseLayerPattern`
 */
export function parseModulePattern(text: string, key: string): LayerPattern {
  if (text.startsWith(REGEX_PREFIX)) return parseLayerPattern(text, key);
  requireText(text, key);
  return createTest(text, compile(text, `^(?:.*\\.)?${globSource(text)}(?:\\..*)?$`, key));
}

function requireText(text: string, key: string): void {
  if (text.trim() !== '') return;
  throw new UserError(
    'invalid_config',
    `Expected a layer name or pattern but received ${JSON.stringify(text)}.`,
    { param: key, suggestions: [`Remove the empty entry from "${key}".`] },
  );
}

function createPattern(
  text: string,
  test: (name: string) => boolean,
  testLayer: (name: string) => boolean = test,
): LayerPattern {
  return {
    text,
    match: ({ members, layerNames }) => {
      const own = members.filter((name) => test(name));
      if (own.length > 0) return own;
      return layerNames.some((name) => testLayer(name)) ? members : [];
    },
  };
}

function isNamed(name: string, text: string): boolean {
  if (text === name || text === `${name}${WEIGHT_SUFFIX}`) return true;
  return !text.includes('.') && name.endsWith(`.${text}`);
}

/**
 * A negated pattern is compared with the plain unfused name alone: `re:(?!.*q_proj$)` must not reach q_proj
 * through its suffix or through the name of its fused layer.
 */
function createTest(text: string, regex: RegExp): LayerPattern {
  if (NEGATION.test(text)) {
    return createPattern(
      text,
      (name) => regex.test(name),
      () => false,
    );
  }
  return createPattern(text, (name) => regex.test(name) || regex.test(`${name}${WEIGHT_SUFFIX}`));
}

function compile(text: string, source: string, key: string): RegExp {
  try {
    return new RegExp(source);
  } catch (cause) {
    throw new UserError(
      'invalid_config',
      `Expected a valid pattern but received ${JSON.stringify(text)}: ${(cause as Error).message}.`,
      {
        param: key,
        suggestions: ['Correct it, e.g. "re:.*o_proj", or give the exact name of the layer.'],
        cause,
      },
    );
  }
}

/** A regular expression that means the same, without anchors. */
export function globSource(glob: string): string {
  return glob.replace(/\[(!?)([^\]]+)\]|[*?]|[^\w]/g, (token, negation?: string, set?: string) => {
    if (token === '*') return '.*';
    if (token === '?') return '.';
    if (set !== undefined) return `[${negation === '!' ? '^' : ''}${set.replace(/[\\^[]/g, '\\$&')}]`;
    return `\\${token}`;
  });
}
