import { UnsupportedError, UserError } from '../errors.js';
import { nearestNames } from './nearest.js';
import type { QuantScheme } from './scheme.js';

const ELSEWHERE = 'load it with the program that made it';

/**
 * Names users bring from FastDeploy, vLLM and SGLang that mean something fdq does not do yet, with what comes
 * closest here. Lower case.
 */
const NOT_YET: ReadonlyMap<string, string> = new Map([
  ...['fp8', 'fp8_per_tensor', 'tensor_wise_fp8', 'fp8_per_channel', 'wfp8afp8'].map(fp8),
  ...['w8a8', 'w4a8', 'wnf4a8', 'experts_int8'].map(weightOnly),
  ...['w4afp8', 'mxfp8'].map(fp8),
  ...['wnf4', 'wnf4a16', 'nvfp4', 'modelopt_fp4', 'nvfp4_per_token', 'mxfp4', 'bitsandbytes'].map(fourBit),
  ...['wint2', 'w2a16', 'lut_b_moe'].map(fourBit),
  ...['mix_quant', 'mixquant', 'online', 'kvcache'].map(oneForAll),
  ...['gptq', 'awq', 'compressed-tensors', 'modelopt'].map(
    (name) => [name, `Such checkpoints are quantized already: ${ELSEWHERE}.`] as const,
  ),
]);

/** W4A16C16, Wfp8Afp8, WNF4A8C8: weight, activation and KV cache types in one word. */
const PRECISION_NAME = /^w(?:int|nf|fp)?\d+a(?:fp)?\d+(?:c(?:fp)?\d+)?$/;

/** Finds a scheme by canonical name or alias; see `resolveScheme`. */
export function findScheme(schemes: readonly QuantScheme[], text: string): QuantScheme {
  const wanted = text.trim().toLowerCase();
  const found = schemes.find(({ name, aliases }) => name === wanted || aliases.includes(wanted));
  if (found !== undefined) return found;
  const [name = '', parameter] = wanted.split(':', 2);
  if (parameter !== undefined) refuseParameter(schemes, text, name);
  const hint = NOT_YET.get(name) ?? (PRECISION_NAME.test(name) ? oneForAll(name)[1] : undefined);
  const list = schemes.map((scheme) => scheme.name).join(', ');
  if (hint !== undefined) {
    throw new UnsupportedError(
      'unknown_scheme',
      `The quantization scheme ${quote(text)} is not supported yet. Supported are: ${list}.`,
      { param: 'quantization', suggestions: [hint] },
    );
  }
  const names = schemes.flatMap((scheme) => [scheme.name, ...scheme.aliases]);
  throw new UserError(
    'unknown_scheme',
    `Expected a quantization scheme (${list}) but received ${quote(text)}.`,
    { param: 'quantization', suggestions: [`Did you mean ${nearestNames(wanted, names, 1).join()}?`] },
  );
}

/** A known name with a parameter it does not have; unknown names are left to the caller. */
function refuseParameter(schemes: readonly QuantScheme[], text: string, name: string): void {
  const base = schemes.find((scheme) => scheme.name === name || scheme.aliases.includes(name));
  if (base === undefined) return;
  const variants = schemes.map((scheme) => scheme.name).filter((other) => other.startsWith(`${base.name}:`));
  const takes =
    variants.length === 0
      ? `${base.name} takes no parameter`
      : `${base.name} comes as ${[base.name, ...variants].join(', ')}`;
  throw new UserError(
    'unknown_scheme',
    `Expected a quantization scheme but received ${quote(text)}: ${takes}.`,
    {
      param: 'quantization',
      suggestions: [`Pass ${variants.at(-1) ?? base.name}.`],
    },
  );
}

function fp8(name: string): readonly [string, string] {
  return [name, 'Use block_wise_fp8: one scale a 128 x 128 tile, inputs in groups of 128.'];
}

function weightOnly(name: string): readonly [string, string] {
  return [name, 'Use wint8 or wint4: the same weights, with inputs that are not quantized.'];
}

function fourBit(name: string): readonly [string, string] {
  return [name, 'Use wint4:g32, the smallest there is, or wint4:g128.'];
}

function oneForAll(name: string): readonly [string, string] {
  return [name, 'Choose one scheme for all layers and leave layers out with {"ignore": [...]}.'];
}

function quote(text: string): string {
  return JSON.stringify(text);
}
