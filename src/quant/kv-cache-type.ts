import { UnsupportedError, UserError } from '../errors.js';
import { nearestNames } from './nearest.js';

/** Types of cached keys and values; `auto`: chosen from the model and the machine. */
export type KvCacheType = 'auto' | 'float32' | 'bfloat16' | 'int8' | 'fp8' | 'int4';

/** Names of `kv_cache_quant_type`, lower case: fdq's own, and those of FastDeploy and vLLM. */
const SPELLINGS: Readonly<Record<string, KvCacheType>> = {
  auto: 'auto',
  none: 'auto',
  float32: 'float32',
  bfloat16: 'bfloat16',
  bf16: 'bfloat16',
  c16: 'bfloat16',
  int8: 'int8',
  c8: 'int8',
  fp8: 'fp8',
  fp8_e4m3: 'fp8',
  float8_e4m3fn: 'fp8',
  cfp8: 'fp8',
  int4: 'int4',
  c4: 'int4',
};

const ZERO_POINTS = 'the KV cache has symmetric scales, one per token and head, and no zero points';

const REFUSED: Readonly<Record<string, string>> = {
  int8_zp: ZERO_POINTS,
  int4_zp: ZERO_POINTS,
  float8_e4m3fn_zp: ZERO_POINTS,
  block_wise_fp8: 'its scales are per token and head: write fp8',
  fp8_e5m2: 'eight-bit floats are e4m3: write fp8',
};

/**
 * A KV cache type by any name it has here, in FastDeploy or in vLLM.
 * @throws UserError `invalid_config` with the nearest name; UnsupportedError for types of other programs
 */
export function parseKvCacheType(text: string, setting: string): KvCacheType {
  const wanted = text.trim().toLowerCase();
  if (Object.hasOwn(SPELLINGS, wanted)) return SPELLINGS[wanted] as KvCacheType;
  const names = Object.keys(SPELLINGS);
  if (Object.hasOwn(REFUSED, wanted)) {
    throw new UnsupportedError(
      'invalid_config',
      `${setting} ${text} is not supported: ${REFUSED[wanted]}. Supported are: ${names.join(', ')}.`,
      { param: setting, suggestions: ['Choose int8, fp8 or int4, or leave it out for BF16.'] },
    );
  }
  throw new UserError(
    'invalid_config',
    `Expected ${setting} to be a KV cache type (${names.join(', ')}) but received ${JSON.stringify(text)}.`,
    { param: setting, suggestions: [`Did you mean ${nearestNames(wanted, names, 1).join()}?`] },
  );
}
