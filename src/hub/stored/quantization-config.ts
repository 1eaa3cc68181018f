import { UnsupportedError } from '../../errors.js';
import { listNames, quote, quotePath } from '../quote.js';
import { isJsonObject } from '../strict-json.js';
import { awq } from './awq.js';
import { compressedTensors } from './compressed-tensors.js';
import { ConfigFields } from './config-fields.js';
import { fp8 } from './fp8.js';
import { gptq } from './gptq.js';
import { modelopt } from './modelopt.js';
import type { StoredMethod, StoredReader } from './stored-method.js';

type JsonObject = Readonly<Record<string, unknown>>;

/** Every way of storing quantized weights that fdq loads. */
const METHODS: readonly StoredMethod[] = [fp8, compressedTensors, gptq, awq, modelopt];

/** Where older tools write what newer ones put in config.json's quantization_config, and the method they are of. */
export const QUANTIZATION_FILES: ReadonlyMap<string, string> = new Map([
  ['quantize_config.json', 'gptq'],
  ['quant_config.json', 'awq'],
  ['hf_quant_config.json', 'modelopt'],
]);

/** Other spellings of methods. */
const ALIASES: ReadonlyMap<string, string> = new Map([
  ['compressed_tensors', 'compressed-tensors'],
  ['gptq_v2', 'gptq'],
  ['modelopt_fp4', 'modelopt'],
  ['modelopt_fp8', 'modelopt'],
]);

/** FastDeploy's marks of a checkpoint whose weights are quantized already. */
const FASTDEPLOY_MARKS = ['is_quantized', 'is_moe_quantized', 'is_permuted'];

/** The quantization config of a checkpoint, and where it was found. */
export interface QuantizationConfig {
  readonly method: StoredMethod;
  readonly reader: StoredReader;
}

/**
 * The way the weights are stored, by config.json or, where that says nothing, a file of its own (`files`, by name).
 * undefined for weights that are not quantized, also when config.json asks to quantize them while they load.
 * @throws UnsupportedError `unsupported_model` naming a method or a field that fdq does not load.
 */
export function parseQuantizationConfig(
  reference: string,
  config: JsonObject,
  files: ReadonlyMap<string, JsonObject>,
): QuantizationConfig | undefined {
  const holders = [config, config['text_config']].filter(isJsonObject);
  const inConfig = holders
    .map((holder) => holder['quantization_config'] ?? holder['compression_config'])
    .find((value) => value !== undefined && value !== null);
  if (inConfig !== undefined) {
    return isOnlineRequest(inConfig) ? undefined : parse(reference, inConfig, 'quantization_config');
  }
  for (const [file, method] of QUANTIZATION_FILES) {
    const values = files.get(file);
    if (values !== undefined) return parse(reference, { quant_method: method, ...values }, file);
  }
  return undefined;
}

/** A config of fdq or FastDeploy that names a scheme for weights that are not quantized yet. */
function isOnlineRequest(value: unknown): boolean {
  if (!isJsonObject(value) || value['quant_method'] !== undefined) return false;
  return value['quantization'] !== undefined && FASTDEPLOY_MARKS.every((mark) => value[mark] !== true);
}

function parse(reference: string, value: unknown, where: string): QuantizationConfig {
  const given = isJsonObject(value) ? value['quant_method'] : undefined;
  const name = typeof given === 'string' ? given.toLowerCase() : undefined;
  const method = METHODS.find((one) => one.name === (ALIASES.get(name ?? '') ?? name));
  if (!isJsonObject(value) || method === undefined) throw refuseMethod(reference, value, where);
  const values = name === 'gptq_v2' ? { checkpoint_format: 'gptq_v2', ...value } : value;
  return { method, reader: method.parse(new ConfigFields(values, where, method.name)) };
}

function refuseMethod(reference: string, value: unknown, where: string): UnsupportedError {
  const given = isJsonObject(value) ? value['quant_method'] : undefined;
  const mark = isJsonObject(value) ? FASTDEPLOY_MARKS.find((one) => value[one] === true) : undefined;
  const found =
    typeof given === 'string'
      ? `quant_method ${quote(given)}`
      : mark === undefined
        ? 'no quant_method'
        : `FastDeploy's ${mark}`;
  return new UnsupportedError(
    'unsupported_model',
    `The weights of ${quotePath(reference)} are already quantized (${where} has ${found}) in a way that fdq does not load; ` +
      `it loads ${listNames(
        METHODS.map((method) => method.name),
        METHODS.length,
      )}.`,
    {
      param: where,
      suggestions: ['Use the unquantized checkpoint this one was made from: fdq quantizes it while loading.'],
    },
  );
}
