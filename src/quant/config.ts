import { z } from 'zod';
import { UnsupportedError, UserError } from '../errors.js';
import { nearestNames } from './nearest.js';
import { resolveScheme } from './registry.js';
import type { QuantScheme } from './scheme.js';

/** What the user asked for, checked. */
export interface QuantizationRequest {
  readonly scheme: QuantScheme;
  /** As written; see `parseLayerPattern`. */
  readonly ignore: readonly string[];
}

export interface QuantizationInputs {
  /** `--quantization`: a scheme name, or a JSON object as text. */
  readonly quantization?: string | undefined;
  /** `--quantization-config`, parsed. */
  readonly config?: Readonly<Record<string, unknown>> | undefined;
}

const FIELDS = {
  quantization: z.string({ error: 'a scheme name' }).min(1, 'a scheme name'),
  ignore: z.array(z.string({ error: 'a list of layer names or patterns' }), {
    error: 'a list of layer names or patterns',
  }),
} as const;

/** Keys of FastDeploy, vLLM and checkpoints that fdq knows and does not act on. */
const NOT_YET: readonly string[] = [
  'linear',
  'moe',
  'targets',
  'linear_scheme_override',
  'moe_scheme_override',
  'dense_quant_type',
  'moe_quant_type',
  'image_moe_quant_type',
  'kv_cache_quant_type',
  'moe_quant_config',
  'is_quantized',
  'is_moe_quantized',
  'is_channel_wise',
  'has_zero_point',
  'is_permuted',
  'hadamard_block_size',
  'weight_block_size',
  'is_checkpoint_bf16',
  'algo',
  'modules_to_not_convert',
  'quant_method',
];

type Fields = { readonly [K in keyof typeof FIELDS]?: z.infer<(typeof FIELDS)[K]> };

/**
 * Scheme and ignore list of a command line. The two flags add up; naming two different schemes is an error.
 * Without a scheme nothing is quantized.
 * @throws UserError `unknown_scheme`; `invalid_config` for text that is no JSON, an unknown key (with the
 *   nearest) or a wrong type; UnsupportedError `invalid_config` naming a key fdq knows and does not act on yet.
 */
export function parseQuantization({ quantization, config }: QuantizationInputs): QuantizationRequest {
  const flag = quantization === undefined ? {} : parseFlag(quantization);
  const object = config === undefined ? {} : parseObject(config, '--quantization-config');
  const schemes = [flag.quantization, object.quantization].flatMap((name) =>
    name === undefined ? [] : [resolveScheme(name)],
  );
  const [scheme = resolveScheme('none'), other = scheme] = schemes;
  if (other !== scheme) {
    throw new UserError(
      'invalid_config',
      `Expected one scheme but --quantization says ${scheme.name} and --quantization-config says ${other.name}.`,
      { param: 'quantization', suggestions: ['Name the scheme in one of the two.'] },
    );
  }
  return { scheme, ignore: [...(flag.ignore ?? []), ...(object.ignore ?? [])] };
}

function parseFlag(text: string): Fields {
  if (!text.trimStart().startsWith('{')) return { quantization: text };
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw invalid(`Expected --quantization to be a scheme name or a JSON object but received ${text}.`, {
      suggestions: [
        'Quote the object for the shell: \'{"quantization": "wint8", "ignore": ["re:.*o_proj"]}\'.',
      ],
      cause,
    });
  }
  return parseObject(value as Readonly<Record<string, unknown>>, '--quantization');
}

function parseObject(object: Readonly<Record<string, unknown>>, flag: string): Fields {
  for (const key of Object.keys(object)) requireKey(key, flag);
  const parsed = z.object(FIELDS).partial().safeParse(object);
  if (parsed.success) {
    const { quantization, ignore } = parsed.data;
    return {
      ...(quantization === undefined ? {} : { quantization }),
      ...(ignore === undefined ? {} : { ignore }),
    };
  }
  const [issue] = parsed.error.issues;
  const key = String(issue?.path[0]);
  throw invalid(
    `Expected "${key}" of ${flag} to be ${issue?.message} but received ${JSON.stringify(object[key])}.`,
    { param: key, suggestions: ['Write it like {"quantization": "wint8", "ignore": ["re:.*o_proj"]}.'] },
  );
}

function requireKey(key: string, flag: string): void {
  const known = Object.keys(FIELDS);
  if (known.includes(key)) return;
  if (NOT_YET.includes(key)) {
    throw new UnsupportedError(
      'invalid_config',
      `The key "${key}" of ${flag} is not supported yet. Supported are: ${known.join(', ')}.`,
      {
        param: key,
        suggestions: [
          'Choose one scheme for all layers with "quantization" and leave layers out with "ignore".',
        ],
      },
    );
  }
  throw invalid(`Expected keys ${known.join(', ')} in ${flag} but received "${key}".`, {
    param: key,
    suggestions: [`Did you mean "${nearestNames(key, known, 1).join()}"?`],
  });
}

function invalid(
  message: string,
  details: { readonly param?: string; readonly suggestions: readonly string[]; readonly cause?: unknown },
): UserError {
  return new UserError('invalid_config', message, { param: 'quantization', ...details });
}
