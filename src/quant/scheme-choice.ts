import { UnsupportedError } from '../errors.js';
import type { KvCacheType } from './kv-cache-type.js';
import { kvTypeOf, parsePrecision, schemeNameOf } from './precision.js';
import { resolveScheme, SCHEME_FAMILIES, SCHEMES } from './registry.js';
import type { QuantScheme } from './scheme.js';

/** What a name stands for. */
export interface SchemeChoice {
  readonly scheme: QuantScheme;
  /** Present when the name has a KV cache part. */
  readonly kvCache?: KvCacheType;
}

/**
 * The scheme that a scheme name, an alias or a precision name means, each with or without a group size
 * (`W4A16C8:g128`).
 * @param offline schemes may be chosen that are too slow to compute while a model loads
 * @throws UserError `unknown_scheme`; UnsupportedError `unknown_scheme` for an impossible precision and for a scheme
 *   that only `fdq convert` makes
 */
export function chooseScheme(text: string, offline: boolean): SchemeChoice {
  const choice = readName(text);
  if (offline || choice.scheme.online) return choice;
  const { name } = choice.scheme;
  throw new UnsupportedError(
    'unknown_scheme',
    `The quantization scheme ${name} takes too long to compute while a model loads: it is made once, by fdq convert.`,
    {
      param: 'quantization',
      suggestions: [
        `Run fdq convert <model> --quantization ${name} --output <folder>, then fdq serve <folder> without --quantization.`,
        `Or choose one of ${SCHEME_FAMILIES.filter(({ variants }) => variants[0].online)
          .map((family) => family.name)
          .join(', ')}.`,
      ],
    },
  );
}

function readName(text: string): SchemeChoice {
  const wanted = text.trim().toLowerCase();
  // Names come first: wint8 has the form of a precision name too.
  if (SCHEMES.some(({ name, aliases }) => name === wanted || aliases.includes(wanted))) {
    return { scheme: resolveScheme(text) };
  }
  const [name = '', ...parameters] = text.trim().split(':');
  const precision = parsePrecision(name);
  if (precision === undefined) return { scheme: resolveScheme(text) };
  const kvCache = kvTypeOf(precision);
  const scheme = resolveScheme([schemeNameOf(precision), ...parameters].join(':'));
  return kvCache === undefined ? { scheme } : { scheme, kvCache };
}
