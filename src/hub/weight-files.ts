import { readdir, realpath } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { UnsupportedError, UserError } from '../errors.js';
import { listNames, quote, quotePath } from './quote.js';
import { describeJson, isJsonObject, parseStrictJsonObject } from './strict-json.js';
import type { ModelSource } from './model-source.js';
import { readSmallFile } from './weight-file.js';

export const SINGLE_FILE = 'model.safetensors';
export const INDEX_FILE = 'model.safetensors.index.json';

const MAX_INDEX_BYTES = 64 * 1024 * 1024;
const MAX_INDEX_DEPTH = 8;
const MAX_FILE_NAME_LENGTH = 255;
/** Weights in formats that run code when read, or that are quantized already. */
const FOREIGN_WEIGHTS = /\.(?:bin|pt|pth|ckpt|pkl|gguf|ggml|h5|msgpack|onnx)$/i;

export interface WeightIndex {
  /** Tensor name → shard file name. */
  readonly weightMap: ReadonlyMap<string, string>;
  /** Each shard once, sorted. */
  readonly shards: readonly string[];
  /** Bytes of all tensors, as the index claims. */
  readonly totalSize: number | undefined;
}

function isPlainFileName(name: string): boolean {
  return name.length <= MAX_FILE_NAME_LENGTH && /^[^/\\\p{Cc}]+\.safetensors$/u.test(name);
}

/** @throws UserError `invalid_checkpoint` for a shard that is anything but a plain `*.safetensors` file name. */
export function parseWeightIndex(bytes: Uint8Array, path: string): WeightIndex {
  const json = parseStrictJsonObject(bytes, { what: INDEX_FILE, maxDepth: MAX_INDEX_DEPTH });
  const refuse = (problem: string): UserError =>
    new UserError('invalid_checkpoint', `Not a valid weight index: ${quotePath(path)}: ${problem}.`, {
      param: path,
      suggestions: [`Fetch ${INDEX_FILE} again from where the model was published.`],
    });
  const { weight_map: rawMap, metadata } = json;
  if (!isJsonObject(rawMap)) throw refuse(`"weight_map" is ${describeJson(rawMap)}, not an object`);
  const weightMap = new Map<string, string>();
  for (const [tensor, shard] of Object.entries(rawMap)) {
    if (typeof shard !== 'string' || !isPlainFileName(shard)) {
      throw refuse(
        `tensor ${quote(tensor)} is in ${describeJson(shard)}, not in a .safetensors file of the same folder`,
      );
    }
    weightMap.set(tensor, shard);
  }
  if (weightMap.size === 0) throw refuse('"weight_map" is empty');
  const claimed = isJsonObject(metadata) ? metadata['total_size'] : undefined;
  return {
    weightMap,
    shards: [...new Set(weightMap.values())].sort(),
    totalSize: typeof claimed === 'number' ? claimed : undefined,
  };
}

export async function readWeightIndex(path: string): Promise<WeightIndex> {
  return parseWeightIndex(await readSmallFile(path, MAX_INDEX_BYTES), path);
}

/** `model.safetensors` wins over an index, as in transformers. */
export type WeightFiles =
  { readonly kind: 'single' } | { readonly kind: 'sharded'; readonly index: WeightIndex };

/** GGUF is quantized already, in formats of its own. */
export const GGUF_ADVICE: readonly string[] = [
  'Give the safetensors checkpoint that the GGUF was made from: a folder, or a hub id like org/name (model pages name it).',
  'fdq quantizes it while loading, for example to 4 bits: --quantization wint4:g128.',
];

function adviseForeign(names: readonly string[]): readonly string[] {
  if (names.every((name) => /\.(?:gguf|ggml)$/i.test(name))) return GGUF_ADVICE;
  return [
    ...(names.some((name) => /\.onnx$/i.test(name))
      ? ['An ONNX decoder is served (fdq serve) where its genai_config.json lies beside it.']
      : []),
    'Use the safetensors version of the model if its publisher has one.',
    'Convert it: python -c "from transformers import AutoModelForCausalLM as M; ' +
      "M.from_pretrained('<model>', torch_dtype='auto').save_pretrained('<new folder>')\"",
  ];
}

function describeMissingWeights(label: string, names: readonly string[]): UserError {
  const foreign = names.filter((name) => FOREIGN_WEIGHTS.test(name));
  const safetensors = names.filter((name) => name.endsWith('.safetensors'));
  if (foreign.length > 0 && safetensors.length === 0) {
    return new UnsupportedError(
      'unsupported_model',
      `The weights in ${quotePath(label)} are ${listNames(foreign)}; fdq loads safetensors (BF16, FP16 or FP32) only.`,
      {
        param: label,
        suggestions: adviseForeign(foreign),
      },
    );
  }
  const found = safetensors.length > 0 ? ` (it has ${listNames(safetensors)})` : '';
  return new UserError(
    'invalid_checkpoint',
    `Expected ${SINGLE_FILE} or ${INDEX_FILE} in ${quotePath(label)} but found neither${found}.`,
    {
      param: label,
      suggestions: [
        'Point --model at the folder that holds config.json and the weights.',
        'Fetch the model again.',
      ],
    },
  );
}

/**
 * Which files hold the weights of a model; messages call it `label`.
 *
 * @throws UserError `invalid_checkpoint`; UnsupportedError `unsupported_model` for weights in other formats.
 */
export async function findWeightFiles(source: ModelSource, label: string): Promise<WeightFiles> {
  if (source.names.includes(SINGLE_FILE)) return { kind: 'single' };
  if (source.names.includes(INDEX_FILE)) {
    const bytes = await source.readSmall(INDEX_FILE, MAX_INDEX_BYTES);
    return { kind: 'sharded', index: parseWeightIndex(bytes, `${label}/${INDEX_FILE}`) };
  }
  throw describeMissingWeights(label, source.names);
}

/** `<repository>/snapshots/<commit>` of the Hugging Face cache, or a folder of that. */
const SNAPSHOT = /^(.*)\/snapshots\/(?:[^/]+|[0-9a-f]{40}\/.+)$/s;

/**
 * The real path of a file of the model folder.
 *
 * A link may stay inside the folder or, in the Hugging Face cache (`snapshots/<commit>/<file>`, or in a folder of that),
 * lead to the `blobs` of the same repository. Anything else could make a downloaded folder read files of the machine.
 *
 * @throws UserError `invalid_checkpoint` for a link that leads elsewhere, or to nothing.
 */
export async function resolveModelFile(dir: string, name: string): Promise<string> {
  const realDir = await realpath(dir);
  const allowed = [realDir];
  const [, cached] = SNAPSHOT.exec(realDir) ?? [];
  if (cached !== undefined) allowed.push(await realpath(join(cached, 'blobs')).catch(() => realDir));
  let target: string;
  try {
    target = await realpath(join(realDir, name));
  } catch (error) {
    throw new UserError(
      'invalid_checkpoint',
      `Expected the file ${quote(name)} in ${quotePath(dir)} but it is missing.`,
      {
        param: name,
        suggestions: ['Fetch the model again; files that are already complete are kept.'],
        cause: error,
      },
    );
  }
  if (allowed.includes(dirname(target))) return target;
  throw new UserError(
    'invalid_checkpoint',
    `${quote(name)} in ${quotePath(dir)} is a link to ${quotePath(target)}, outside of the model's folder.`,
    {
      param: name,
      suggestions: [
        'Replace the link by the file itself, or point --model at the folder that really holds the files.',
      ],
    },
  );
}

export async function listFolder(dir: string): Promise<readonly string[]> {
  try {
    return (await readdir(dir)).sort();
  } catch (error) {
    throw new UserError('model_not_found', `Cannot read the model folder ${quotePath(dir)}.`, {
      param: dir,
      suggestions: ['Check that the folder exists and that this user may read it.'],
      cause: error,
    });
  }
}
