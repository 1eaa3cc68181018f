import type { QuantizationFlags } from '../load/apply-quantization.js';

type JsonObject = Readonly<Record<string, unknown>>;

/** Keys that give layers schemes of their own: beside them no single scheme can be tried on all. */
const SCHEME_KEYS: readonly string[] = [
  'targets',
  'linear',
  'moe',
  'linear_scheme_override',
  'moe_scheme_override',
  'dense_quant_type',
  'moe_quant_type',
];

/** The flags of a command line, the scheme apart from everything else. */
export interface SplitFlags {
  /** Scheme names given, in `--quantization` or in a JSON object. */
  readonly names: readonly string[];
  /** Keys that name schemes for some layers. */
  readonly schemeKeys: readonly string[];
  /** Everything but the scheme: layers left out, the lm_head, the cache. */
  readonly rest: QuantizationFlags;
}

/** Takes the scheme out of the flags; text that is no JSON object is left for the parser to refuse. */
export function splitFlags({ quantization, quantizationConfig, ...others }: QuantizationFlags): SplitFlags {
  const inline = quantization === undefined ? undefined : parseObject(quantization);
  const objects = [inline, quantizationConfig].filter((object) => object !== undefined);
  const names = objects.flatMap((object) => object['quantization'] ?? []).map(String);
  if (quantization !== undefined && inline === undefined) names.unshift(quantization);
  const config = Object.fromEntries(
    objects.flatMap((object) => Object.entries(object)).filter(([key]) => key !== 'quantization'),
  );
  return {
    names,
    schemeKeys: Object.keys(config).filter((key) => SCHEME_KEYS.includes(key)),
    rest: { ...others, ...(Object.keys(config).length === 0 ? {} : { quantizationConfig: config }) },
  };
}

function parseObject(text: string): JsonObject | undefined {
  if (!text.trimStart().startsWith('{')) return undefined;
  try {
    return JSON.parse(text) as JsonObject;
  } catch {
    return undefined;
  }
}
