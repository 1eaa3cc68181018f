import { UnsupportedError } from '../errors.js';
import type { KvCacheType } from './kv-cache-type.js';
import type { QuantKey, QuantScheme } from './scheme.js';

/**
 * Bits and number formats of weights, activations and KV cache in one word, `W4A16C8`: plain numbers are integers,
 * 16 is BF16. The KV cache part may be absent.
 */
export interface Precision {
  readonly weight: WeightPrecision;
  readonly activation: ActivationPrecision;
  readonly kv?: KvPrecision;
}

const WEIGHTS = ['2', '4', '8', '16', 'fp4', 'fp8', 'nf4'] as const;
const ACTIVATIONS = ['8', '16', 'fp8'] as const;
const KV_TYPES = ['4', '8', '16', 'fp8'] as const;

type WeightPrecision = (typeof WEIGHTS)[number];
type ActivationPrecision = (typeof ACTIVATIONS)[number];
type KvPrecision = (typeof KV_TYPES)[number];

/** The scheme each pair of weight and activation means; pairs without one cannot be asked for. */
const SCHEMES: Readonly<Record<WeightPrecision, Partial<Record<ActivationPrecision, string>>>> = {
  '2': { '16': 'wint2' },
  '4': { '16': 'wint4', '8': 'w4a8', fp8: 'w4afp8' },
  '8': { '16': 'wint8', '8': 'w8a8' },
  '16': { '16': 'none' },
  fp4: { '16': 'nvfp4' },
  fp8: { fp8: 'fp8_per_channel' },
  nf4: { '16': 'wnf4', '8': 'wnf4a8' },
};

/** Other spellings of the number after W, A or C. */
const SPELLINGS: Readonly<Record<string, string>> = {
  int2: '2',
  int4: '4',
  int8: '8',
  bf16: '16',
  nvfp4: 'fp4',
  e4m3: 'fp8',
};

/** A weight part of some number format; what follows A and C may be anything that holds neither letter. */
const SHAPE = /^w((?:int|nf|fp|bf|nvfp|mxfp)?\d+)(?:a([^ac:]*))?(?:c([^ac:]*))?$/i;

/**
 * Reads a precision name; case does not matter. Without an activation part it is 16 where that exists, as in
 * `WInt4`.
 * @returns undefined for text that is no precision name at all
 * @throws UnsupportedError `unknown_scheme` saying which part is impossible, and what is possible in its place
 */
export function parsePrecision(text: string): Precision | undefined {
  const [, first, second, third] = SHAPE.exec(text.trim()) ?? [];
  if (first === undefined) return undefined;
  const weight = readPart({ text, letter: 'W', part: first, possible: WEIGHTS });
  const schemes = SCHEMES[weight];
  const pairs = ACTIVATIONS.filter((activation) => schemes[activation] !== undefined);
  const activation =
    second === undefined && schemes['16'] !== undefined
      ? '16'
      : readPart({ text, letter: 'A', part: second ?? '', possible: pairs, beside: `W${spell(weight)}` });
  if (third === undefined) return { weight, activation };
  return { weight, activation, kv: readPart({ text, letter: 'C', part: third, possible: KV_TYPES }) };
}

/** `W4A16C8`, `WNF4A8`, `Wfp8Afp8C16`: what `parsePrecision` reads back as the same. */
export function formatPrecision({ weight, activation, kv }: Precision): string {
  return `W${spell(weight)}A${spell(activation)}${kv === undefined ? '' : `C${spell(kv)}`}`;
}

/** Name of the scheme for weights and activations of that precision. */
export function schemeNameOf({ weight, activation }: Precision): string {
  // parsePrecision makes no pair the table lacks.
  return SCHEMES[weight][activation] as string;
}

const KV_CACHE_TYPES: Readonly<Record<KvPrecision, KvCacheType>> = {
  '4': 'int4',
  '8': 'int8',
  '16': 'bfloat16',
  fp8: 'fp8',
};

/** The KV cache type of a name, or undefined when it says nothing about it. */
export function kvTypeOf({ kv }: Precision): KvCacheType | undefined {
  return kv === undefined ? undefined : KV_CACHE_TYPES[kv];
}

const ELEMENTS: Readonly<Record<QuantKey['element'], WeightPrecision>> = {
  int2: '2',
  int4: '4',
  int8: '8',
  nf4: 'nf4',
  float4e2m1: 'fp4',
  float8e4m3fn: 'fp8',
  stored: '16',
};

/** The precision name of any scheme, `W4A16` for `wint4:g128`; several schemes share one. */
export function precisionName({ weight, activation }: Pick<QuantScheme, 'weight' | 'activation'>): string {
  const inputs = activation === null ? '16' : ELEMENTS[activation.element];
  return `W${spell(ELEMENTS[weight.element])}A${spell(inputs)}`;
}

interface Part<T extends string> {
  readonly text: string;
  readonly letter: 'W' | 'A' | 'C';
  readonly part: string;
  readonly possible: readonly T[];
  /** The part before, when it limits this one. */
  readonly beside?: string;
}

function readPart<T extends string>({ text, letter, part, possible, beside }: Part<T>): T {
  const lower = part.toLowerCase();
  const wanted = SPELLINGS[lower] ?? lower;
  const found = possible.find((candidate) => candidate === wanted);
  if (found !== undefined) return found;
  const list = possible.map((candidate) => `${letter}${spell(candidate)}`).join(', ');
  const says = part === '' ? `says nothing after ${letter}` : `says ${letter}${part}`;
  throw new UnsupportedError(
    'unknown_scheme',
    `The precision name ${JSON.stringify(text)} ${says}, which is not possible${beside === undefined ? '' : ` beside ${beside}`}. Possible are: ${list}.`,
    { param: 'quantization', suggestions: [`Write one of ${list} there, or a scheme name like wint4:g128.`] },
  );
}

function spell(part: string): string {
  return part === 'nf4' ? 'NF4' : part;
}
