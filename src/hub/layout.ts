import { UserError } from '../errors.js';
import type { ModelSource } from './model-source.js';
import { quotePath } from './quote.js';
import { describeJson, isJsonObject, parseStrictJsonObject } from './strict-json.js';

/** What a folder holds: what `fdq convert` wrote, a model of onnxruntime-genai, or safetensors. */
export type ModelLayout = 'fdq' | 'genai' | 'checkpoint';

export const MANIFEST_FILE = 'fdq.json';
/** Of a folder that `fdq convert` wrote. */
export const GRAPH_FILE = 'model.onnx';
export const WEIGHTS_FILE = 'weights.bin';
export const GENAI_FILE = 'genai_config.json';
const TOKENIZER_FILE = 'tokenizer.json';

const MAX_GENAI_BYTES = 4 * 1024 * 1024;
const MAX_GENAI_DEPTH = 32;
/** Models are read whole; what is larger has its weights inside and is refused when it is opened. */
const MAX_ONNX_BYTES = 512 * 1024 * 1024;
const PLAIN_ONNX = /^[^/\\\p{Cc}]+\.onnx$/u;
/** An entry of TensorProto.external_data as protobuf writes it: key "location", then the value's tag. */
const LOCATION_ENTRY = Buffer.from('\x0a\x08location\x12', 'latin1');

/** Safetensors are preferred to a model of onnxruntime-genai beside them. */
export function findLayout(names: readonly string[]): ModelLayout {
  if (names.includes(MANIFEST_FILE)) return 'fdq';
  const hasSafetensors = names.some((name) => name.endsWith('.safetensors'));
  return names.includes(GENAI_FILE) && !hasSafetensors ? 'genai' : 'checkpoint';
}

/** Whether there is nothing of a model but perhaps a config.json: models may lie in folders below. */
export function hasNoModel(names: readonly string[]): boolean {
  return findLayout(names) === 'checkpoint' && !names.some((name) => name.includes('.safetensors'));
}

/**
 * What to know about a folder or repository of these names that can be loaded but not served.
 * @param where as messages call it
 */
export function warnAboutTokenizer(names: readonly string[], where: string): readonly string[] {
  if (names.includes(TOKENIZER_FILE)) return [];
  return [
    `${quotePath(where)} has no ${TOKENIZER_FILE}, without which fdq serve refuses it: ` +
      'copy it from where the model was published, or name its folder with --tokenizer.',
  ];
}

/** genai_config.json, unchecked. */
export async function readGenaiJson(source: ModelSource): Promise<Record<string, unknown>> {
  const bytes = await source.readSmall(GENAI_FILE, MAX_GENAI_BYTES);
  return parseStrictJsonObject(bytes, { what: GENAI_FILE, maxDepth: MAX_GENAI_DEPTH });
}

/**
 * Plain name of the decoder's ONNX file in the same folder.
 * @throws UserError `invalid_checkpoint`
 */
export function decoderFileOf(genai: Readonly<Record<string, unknown>>): string {
  const model = isJsonObject(genai['model']) ? genai['model'] : {};
  const decoder = isJsonObject(model['decoder']) ? model['decoder'] : {};
  const named = decoder['filename'];
  const name = typeof named === 'string' && named !== '' ? named : GRAPH_FILE;
  if (PLAIN_ONNX.test(name)) return name;
  throw new UserError(
    'invalid_checkpoint',
    `Not a valid ${GENAI_FILE}: model.decoder.filename is ${describeJson(name)}, not an .onnx file of the same folder.`,
    { param: GENAI_FILE, suggestions: ['Export the model again with onnxruntime-genai.'] },
  );
}

/**
 * The ONNX file of a model of onnxruntime-genai, and the files beside it that hold its tensors.
 * @throws UserError `invalid_checkpoint`
 */
export async function listGenaiFiles(
  decoder: string,
  source: Pick<ModelSource, 'readSmall'>,
): Promise<readonly string[]> {
  return [decoder, ...listExternalFiles(await source.readSmall(decoder, MAX_ONNX_BYTES))];
}

/**
 * Locations of external tensors in a serialized ONNX model, each once. They are found by their bytes: parsing proves
 * them when the model is opened.
 */
function listExternalFiles(model: Uint8Array): readonly string[] {
  const bytes = Buffer.from(model.buffer, model.byteOffset, model.byteLength);
  const names = new Set<string>();
  for (let at = bytes.indexOf(LOCATION_ENTRY); at !== -1; at = bytes.indexOf(LOCATION_ENTRY, at + 1)) {
    const start = at + LOCATION_ENTRY.length;
    const [low = 0, high = 0] = bytes.subarray(start, start + 2);
    const isLong = low >= 0x80;
    const length = isLong ? (low & 0x7f) | (high << 7) : low;
    const first = start + (isLong ? 2 : 1);
    names.add(bytes.toString('utf8', first, first + length));
  }
  return [...names].filter((name) => name !== '');
}
