import { z } from 'zod';
import { UnsupportedError, UserError } from '../errors.js';
import { nearestNames } from './nearest.js';

const NAME = 'a scheme or precision name';
const PATTERNS = 'a layer name or pattern, or a list of them';

const name = z.string({ error: NAME }).min(1, NAME);
const patterns = z
  .union([z.string(), z.array(z.string())], { error: PATTERNS })
  .transform((value) => (typeof value === 'string' ? [value] : value));
const flag = z.boolean({ error: 'true or false' });

const FIELDS = z
  .object({
    quantization: name,
    linear: name,
    linear_scheme_override: name,
    dense_quant_type: name,
    moe: name,
    moe_scheme_override: name,
    moe_quant_type: name,
    kv_cache_quant_type: z.string({ error: 'a KV cache type' }),
    ignore: patterns,
    modules_to_not_convert: patterns,
    targets: z.record(z.string(), name, { error: 'an object of patterns and schemes' }),
    quantize_lm_head: flag,
    quantize_embeddings: flag,
  })
  .partial();

/** A quantization config with known keys and values of the right type; schemes are names still. */
export type ConfigFields = z.infer<typeof FIELDS>;

const KEYS = Object.keys(FIELDS.shape) as readonly (keyof ConfigFields)[];

const OF_CHECKPOINT =
  'it describes a checkpoint that is quantized already, and is read from its own config.json only';

/** Keys of FastDeploy, vLLM and checkpoints that do not choose how weights are quantized, and why. */
const REFUSED: ReadonlyMap<string, string> = new Map([
  ['image_moe_quant_type', 'fdq runs no model that has experts for images'],
  ...[
    'quant_method',
    'is_quantized',
    'is_moe_quantized',
    'is_checkpoint_bf16',
    'is_channel_wise',
    'is_permuted',
    'has_zero_point',
    'hadamard_block_size',
    'weight_block_size',
    'moe_quant_config',
    'activation_scheme',
    'config_groups',
    'algo',
    'quant_algo',
    'bits',
    'group_size',
    'desc_act',
    'sym',
    'zero_point',
  ].map((key) => [key, OF_CHECKPOINT] as const),
]);

/**
 * Checks the keys and the types of a quantization config.
 * @param setting how messages name where it was given, e.g. `--quantization-config`
 * @throws UserError `invalid_config` for an unknown key, with the nearest, or a wrong type; UnsupportedError
 *   `invalid_config` for a key of other programs that chooses nothing
 */
export function readConfigFields(object: unknown, setting: string): ConfigFields {
  if (typeof object !== 'object' || object === null || Array.isArray(object)) {
    throw invalid(`Expected ${setting} to be an object but received ${JSON.stringify(object)}.`, setting, [
      EXAMPLE,
    ]);
  }
  for (const key of Object.keys(object)) requireKey(key, setting);
  const parsed = FIELDS.safeParse(object);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  const path = (issue?.path ?? []).map(String);
  const received = path.reduce<unknown>(
    (value, key) => (value as Readonly<Record<string, unknown>>)[key],
    object,
  );
  throw invalid(
    `Expected "${path.join('.')}" of ${setting} to be ${issue?.message} but received ${JSON.stringify(received)}.`,
    path[0] ?? setting,
    [EXAMPLE],
  );
}

const EXAMPLE =
  'Write it like {"quantization": "wint4", "ignore": ["re:.*o_proj"], "targets": {"*.down_proj": "wint8"}}.';

function requireKey(key: string, setting: string): void {
  if ((KEYS as readonly string[]).includes(key)) return;
  const list = KEYS.join(', ');
  const reason = REFUSED.get(key);
  if (reason !== undefined) {
    throw new UnsupportedError(
      'invalid_config',
      `The key "${key}" of ${setting} is not supported: ${reason}. Supported are: ${list}.`,
      { param: key, suggestions: [`Leave "${key}" out.`] },
    );
  }
  throw invalid(`Expected keys ${list} in ${setting} but received "${key}".`, key, [
    `Did you mean "${nearestNames(key, KEYS, 1).join()}"?`,
  ]);
}

function invalid(message: string, param: string, suggestions: readonly string[]): UserError {
  return new UserError('invalid_config', message, { param, suggestions });
}
