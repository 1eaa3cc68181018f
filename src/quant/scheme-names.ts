import { UnsupportedError, UserError } from '../errors.js';
import { nearestNames } from './nearest.js';
import type { QuantScheme } from './scheme.js';

const NEAREST = 3;

/** Names users bring from FastDeploy, vLLM and SGLang that are no scheme here, with what to do. Lower case. */
const NO_SCHEMES: ReadonlyMap<string, string> = new Map([
  ...['mix_quant', 'mixquant'].map(
    (name) =>
      [
        name,
        'Say which schemes it mixes: {"quantization": "mix_quant", "dense_quant_type": "wint8", "moe_quant_type": "wint4"}.',
      ] as const,
  ),
  ...['gptq', 'gptq_marlin', 'awq', 'awq_marlin', 'compressed-tensors', 'modelopt'].map(
    (name) => [name, 'It is a format of stored checkpoints: leave --quantization out to serve one.'] as const,
  ),
  ['kvcache', 'Use --kv-cache-dtype int8: keys and values are no weights.'],
  ['online', 'Every scheme but wint2 is computed while the model loads: name one, such as wint8.'],
  ['experts_int8', 'Use {"moe": "wint8"} for the experts alone, or wint8 for every layer.'],
  ['mxfp8', 'Use block_wise_fp8: one scale a 128 x 128 tile, inputs in groups of 128.'],
  ['nvfp4_per_token', 'Use nvfp4: the same weights, with inputs that are not quantized.'],
  ['bitsandbytes', 'Use wnf4, its 4-bit type, or wint8.'],
  ['lut_b_moe', 'Use wint2, made by fdq convert, or wint4:g32.'],
]);

/** Finds a scheme by canonical name or alias; see `resolveScheme`. */
export function findScheme(schemes: readonly QuantScheme[], text: string): QuantScheme {
  const wanted = text.trim().toLowerCase();
  const found = schemes.find(({ name, aliases }) => name === wanted || aliases.includes(wanted));
  if (found !== undefined) return found;
  const [name = '', parameter] = wanted.split(':', 2);
  if (parameter !== undefined) refuseParameter(schemes, text, name);
  const hint = NO_SCHEMES.get(name);
  const list = listNames(schemes);
  if (hint !== undefined) {
    throw new UnsupportedError(
      'unknown_scheme',
      `${quote(text)} is not a quantization scheme by itself. Supported are: ${list}.`,
      { param: 'quantization', suggestions: [hint] },
    );
  }
  const names = schemes.flatMap((scheme) => [scheme.name, ...scheme.aliases]);
  const nearest = nearestNames(wanted, names, NEAREST).join(', ');
  throw new UserError(
    'unknown_scheme',
    `Expected a quantization scheme (${list}) but received ${quote(text)}.`,
    { param: 'quantization', suggestions: [`Did you mean one of ${nearest}?`] },
  );
}

/** `none, wint8, ...`: bare names; what parameters one takes is said when one is wrong. */
function listNames(schemes: readonly QuantScheme[]): string {
  return schemes
    .map(({ name }) => name)
    .filter((name) => !name.includes(':'))
    .join(', ');
}

/** A known name with a parameter it does not have; unknown names are left to the caller. */
function refuseParameter(schemes: readonly QuantScheme[], text: string, name: string): void {
  const base = schemes.find((scheme) => scheme.name === name || scheme.aliases.includes(name));
  if (base === undefined) return;
  const family = schemes
    .map((scheme) => scheme.name)
    .filter((other) => other === base.name || other.startsWith(`${base.name}:`));
  const takes =
    family.length === 1 ? `${base.name} takes no parameter` : `${base.name} comes as ${family.join(', ')}`;
  const [nearest] = nearestNames(`${base.name}${text.trim().toLowerCase().slice(name.length)}`, family, 1);
  throw new UserError(
    'unknown_scheme',
    `Expected a quantization scheme but received ${quote(text)}: ${takes}.`,
    { param: 'quantization', suggestions: [`Pass ${nearest ?? base.name}.`] },
  );
}

function quote(text: string): string {
  return JSON.stringify(text);
}
