import { UserError } from '../errors.js';
import { listNames, quote, quotePath } from './quote.js';
import { createFolderSource } from './model-source.js';
import type { ModelSource } from './model-source.js';
import { readHeader } from './safetensors.js';
import type { SafetensorsHeader, TensorInfo } from './safetensors.js';
import { parseQuantizationConfig, QUANTIZATION_FILES } from './stored/quantization-config.js';
import type { QuantizationConfig } from './stored/quantization-config.js';
import { readStoredTensors } from './stored/stored-checkpoint.js';
import type { ModelTensor } from './stored/stored-checkpoint.js';
import { parseStrictJsonObject } from './strict-json.js';
import { openWeightFile } from './weight-file.js';
import type { FileIdentity } from './weight-file.js';
import { findWeightFiles, INDEX_FILE, listFolder, SINGLE_FILE } from './weight-files.js';
import type { WeightFiles, WeightIndex } from './weight-files.js';

export type { SafetensorsDtype, TensorInfo } from './safetensors.js';
export type { FileIdentity } from './weight-file.js';

/** What `openCheckpoint` needs of a located model. */
export interface CheckpointLocation {
  /** As the user wrote it. */
  readonly reference: string;
  readonly dir: string;
  /** Commit hash, when the folder is a snapshot of a hub repository. */
  readonly revision?: string;
}

/** A checkpoint of which only the headers were read, with every size proven against its file. */
export interface Checkpoint extends CheckpointLocation {
  readonly config: Readonly<Record<string, unknown>>;
  readonly generationConfig: Readonly<Record<string, unknown>> | undefined;
  /** As a model sees them: the parts of a weight that is stored quantized are one tensor. */
  readonly tensors: ReadonlyMap<string, ModelTensor>;
  /** `quant_method`, when weights are stored quantized. */
  readonly quantMethod?: string;
  /** Bytes of all tensors. */
  readonly totalBytes: number;
  /** The weight files, as they were when their headers were checked. */
  readonly files: readonly FileIdentity[];
  /** Whole sentences, for the user. */
  readonly warnings: readonly string[];
}

interface Weights {
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  readonly files: readonly FileIdentity[];
  readonly warnings: readonly string[];
}

const MAX_CONFIG_BYTES = 16 * 1024 * 1024;
const MAX_CONFIG_DEPTH = 32;
const MAX_TENSORS = 1 << 20;
/** Headers read at the same time. */
const HEADER_READERS = 8;
const CODE_FILE = /\.py$/i;
const PICKLE_FILE = /\.(?:bin|pt|pth|pkl|pickle|ckpt)$/i;

async function readJsonFile(source: ModelSource, name: string): Promise<Record<string, unknown>> {
  const bytes = await source.readSmall(name, MAX_CONFIG_BYTES);
  return parseStrictJsonObject(bytes, { what: name, maxDepth: MAX_CONFIG_DEPTH });
}

/** generation_config.json, which a model need not have. */
export async function readGenerationFile(source: ModelSource): Promise<Record<string, unknown> | undefined> {
  const name = 'generation_config.json';
  return source.names.includes(name) ? readJsonFile(source, name) : undefined;
}

/** @throws UserError `invalid_checkpoint`, which calls the folder `label`. */
export async function readConfig(source: ModelSource, label: string): Promise<Record<string, unknown>> {
  if (!source.names.includes('config.json')) {
    throw new UserError(
      'invalid_checkpoint',
      `Expected config.json in ${quotePath(label)} but it is missing.`,
      {
        param: 'config.json',
        suggestions: [
          'Point --model at the folder that holds config.json and the weights.',
          'Fetch config.json from where the model was published; without it the architecture is unknown.',
        ],
      },
    );
  }
  return readJsonFile(source, 'config.json');
}

/**
 * How the weights are stored, from config.json and the files some tools write beside it; undefined when they are not
 * quantized.
 * @throws UnsupportedError `unsupported_model` naming a method or a field that fdq does not load.
 */
export async function readQuantizationConfig(
  source: ModelSource,
  config: Readonly<Record<string, unknown>>,
  reference: string,
): Promise<QuantizationConfig | undefined> {
  const files = new Map<string, Readonly<Record<string, unknown>>>();
  for (const file of QUANTIZATION_FILES.keys()) {
    if (source.names.includes(file)) files.set(file, await readJsonFile(source, file));
  }
  return parseQuantizationConfig(reference, config, files);
}

function listIgnored(config: Readonly<Record<string, unknown>>, names: readonly string[]): readonly string[] {
  const warnings: string[] = [];
  const code = names.filter((name) => CODE_FILE.test(name));
  const pickles = names.filter((name) => PICKLE_FILE.test(name));
  if (config['auto_map'] !== undefined) {
    warnings.push('config.json names custom code (auto_map); fdq never runs code from a model folder.');
  }
  if (code.length > 0) warnings.push(`Ignored program files in the model folder: ${listNames(code)}.`);
  if (pickles.length > 0) warnings.push(`Ignored pickle files in the model folder: ${listNames(pickles)}.`);
  return warnings;
}

async function readWeightHeader(source: ModelSource, name: string): Promise<SafetensorsHeader> {
  const reader = await source.openWeights(name);
  try {
    return await readHeader(reader);
  } finally {
    await reader.close();
  }
}

async function readHeaders(
  source: ModelSource,
  shards: readonly string[],
): Promise<ReadonlyMap<string, SafetensorsHeader>> {
  const headers = new Map<string, SafetensorsHeader>();
  for (let start = 0; start < shards.length; start += HEADER_READERS) {
    const batch = shards.slice(start, start + HEADER_READERS);
    const read = await Promise.all(
      batch.map(async (shard) => [shard, await readWeightHeader(source, shard)] as const),
    );
    for (const [shard, header] of read) headers.set(shard, header);
  }
  return headers;
}

function refuseMissingShards(
  { reference, dir }: CheckpointLocation,
  missing: readonly string[],
  count: number,
): UserError {
  return new UserError(
    'invalid_checkpoint',
    `${quotePath(dir)} lacks ${missing.length} of the ${count} weight files that ${INDEX_FILE} names: ${listNames(missing)}.`,
    {
      param: missing[0] ?? INDEX_FILE,
      suggestions: [
        `Fetch the missing files of ${reference} again; files that are already complete are kept.`,
      ],
    },
  );
}

async function readSharded(
  location: CheckpointLocation,
  index: WeightIndex,
  source: ModelSource,
): Promise<Weights> {
  const missing = index.shards.filter((shard) => !source.names.includes(shard));
  if (missing.length > 0) throw refuseMissingShards(location, missing, index.shards.length);

  const headers = await readHeaders(source, index.shards);
  const tensors = new Map<string, TensorInfo>();
  for (const [name, shard] of index.weightMap) {
    const tensor = headers.get(shard)?.tensors.get(name);
    if (tensor === undefined) {
      throw new UserError(
        'invalid_checkpoint',
        `${INDEX_FILE} says that tensor ${quote(name)} is in ${quote(shard)}, but it is not.`,
        {
          param: name,
          suggestions: [`Fetch ${INDEX_FILE} and ${shard} again: they are not of the same version.`],
        },
      );
    }
    tensors.set(name, tensor);
  }

  return {
    tensors,
    files: [...headers.values()].map((header) => header.file),
    warnings: compareWithIndex(index, headers, tensors),
  };
}

/** What the index and the shards say differently without harm. */
function compareWithIndex(
  index: WeightIndex,
  headers: ReadonlyMap<string, SafetensorsHeader>,
  tensors: ReadonlyMap<string, TensorInfo>,
): readonly string[] {
  const warnings: string[] = [];
  for (const [shard, header] of headers) {
    const extra = [...header.tensors.keys()].filter((name) => index.weightMap.get(name) !== shard);
    if (extra.length > 0) {
      warnings.push(
        `Ignored tensors of ${shard} that ${INDEX_FILE} does not place there: ${listNames(extra)}.`,
      );
    }
  }
  const totalBytes = sumBytes(tensors);
  if (index.totalSize !== undefined && index.totalSize !== totalBytes) {
    warnings.push(`${INDEX_FILE} claims ${index.totalSize} bytes of tensors; the files hold ${totalBytes}.`);
  }
  return warnings;
}

function sumBytes(tensors: ReadonlyMap<string, TensorInfo>): number {
  return [...tensors.values()].reduce((sum, tensor) => sum + tensor.byteLength, 0);
}

async function readWeights(
  location: CheckpointLocation,
  found: WeightFiles,
  source: ModelSource,
): Promise<Weights> {
  if (found.kind === 'sharded') return readSharded(location, found.index, source);
  const { tensors, file } = await readWeightHeader(source, SINGLE_FILE);
  return { tensors, files: [file], warnings: [] };
}

function checkTensorCount(dir: string, count: number): void {
  if (count > 0 && count <= MAX_TENSORS) return;
  throw new UserError(
    'invalid_checkpoint',
    `${quotePath(dir)} has ${count} tensors, not 1 to ${MAX_TENSORS}.`,
    {
      param: dir,
      suggestions: ['Fetch the weight files again from where the model was published.'],
    },
  );
}

/**
 * Reads config.json, generation_config.json and the headers of all weight files; of tensors only those small ones of a
 * quantized checkpoint that decide about its graph.
 *
 * @throws UserError `invalid_checkpoint` naming the file and what is wrong with it; UnsupportedError
 *   `unsupported_model` for weights in another format, or quantized in a way that fdq does not load.
 */
export async function openCheckpoint(location: CheckpointLocation): Promise<Checkpoint> {
  return readCheckpoint(location, createFolderSource(location.dir, await listFolder(location.dir)));
}

/** As `openCheckpoint`, from wherever the files are; messages call that place `location.dir`. */
export async function readCheckpoint(location: CheckpointLocation, source: ModelSource): Promise<Checkpoint> {
  const { reference, dir, revision } = location;
  const found = await findWeightFiles(source, dir);
  const config = await readConfig(source, dir);
  const quantization = await readQuantizationConfig(source, config, reference);
  const generationConfig = await readGenerationFile(source);

  const { tensors, files, warnings } = await readWeights(location, found, source);
  checkTensorCount(dir, tensors.size);
  const stored =
    quantization === undefined
      ? undefined
      : await readStoredTensors(quantization, tensors, { files, source });
  return {
    reference,
    dir,
    ...(revision === undefined ? {} : { revision }),
    config,
    generationConfig,
    tensors: stored?.tensors ?? tensors,
    ...(quantization === undefined ? {} : { quantMethod: quantization.method.name }),
    totalBytes: sumBytes(tensors),
    files,
    warnings: [...warnings, ...(stored?.warnings ?? []), ...listIgnored(config, source.names)],
  };
}

/**
 * Proves that the weight files are still those whose headers were checked.
 *
 * @throws UserError `invalid_checkpoint` naming a file that was truncated, replaced or written to.
 */
export async function verifyUnchanged(checkpoint: Pick<Checkpoint, 'files'>): Promise<void> {
  for (const file of checkpoint.files) {
    const handle = await openWeightFile(file.path, file);
    await handle.close();
  }
}
