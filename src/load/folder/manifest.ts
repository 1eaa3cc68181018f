import { z } from 'zod';
import { describeMismatch, nameExpected } from '../../describe-issue.js';
import { UserError } from '../../errors.js';
import { DATA_TYPE_NAMES, findByteLength } from '../../graph/data-types.js';
import type { DataType } from '../../graph/ir.js';
import { WEIGHTS_FILE } from '../../hub/layout.js';
import { parseStrictJsonObject } from '../../hub/strict-json.js';
import type { DecoderInfo } from '../../models/architecture.js';
import type { ErrorSums } from '../weight-meter.js';
import { LAYER_KINDS } from '../../quant/plan-layers.js';
import type { LayerReport } from '../../quant/report.js';
import type { QuantizationFlags } from '../apply-quantization.js';
import { TENSOR_ALIGNMENT, type WrittenTensor } from './weights-file.js';

/** Version of fdq.json itself. */
export const FORMAT_VERSION = 1;
/** Version of the panel layouts of custom-ops/include/fdq/formats.h. */
export const LAYOUT_VERSION = 1;
/** Version of the rounding rules: it changes when a scheme gives other bytes for the same weights. */
export const ROUNDING_CONTRACT = 3;

export const MAX_MANIFEST_BYTES = 256 * 1024 * 1024;
const MAX_DEPTH = 32;

/** A weight file the model was made from. */
export interface SourceFile {
  readonly name: string;
  readonly bytes: number;
  /** Of the safetensors header: names, types, shapes and places of all tensors. */
  readonly headerSha256: string;
}

/** What fdq.json says of the weights; all of a cache entry's. */
export interface WeightsManifest {
  readonly formatVersion: typeof FORMAT_VERSION;
  readonly fdqVersion: string;
  readonly layoutVersion: typeof LAYOUT_VERSION;
  readonly roundingContract: number;
  readonly weights: {
    readonly file: typeof WEIGHTS_FILE;
    readonly bytes: number;
    readonly tensors: readonly WrittenTensor[];
  };
}

/** fdq.json of a folder that `fdq convert` wrote. */
export interface ModelManifest extends WeightsManifest {
  readonly kind: 'model';
  readonly source: {
    /** As the user wrote it. */
    readonly model: string;
    /** Commit of a hub repository. */
    readonly revision?: string | undefined;
    readonly files: readonly SourceFile[];
  };
  /** Canonical name of what was asked for. */
  readonly scheme: string;
  /** The flags it was asked with. */
  readonly quantization: QuantizationFlags;
  /** Float type the checkpoint is stored in: what `--dtype auto` goes by. */
  readonly storedDataType: DataType;
  readonly decoder: DecoderInfo;
  /** What each layer became and the rule that decided. */
  readonly layers: readonly LayerReport[];
  /** What quantizing each tensor lost, by its name; absent where the float weights were not there to compare. */
  readonly errors?: Readonly<Record<string, ErrorSums>> | undefined;
}

const count = z.number().int().nonnegative().max(Number.MAX_SAFE_INTEGER);
const size = count.min(1);
const dataType = z.enum(DATA_TYPE_NAMES as readonly [DataType, ...DataType[]]);
const sha256 = z.string().regex(/^[0-9a-f]{64}$/);

const TENSOR = z.strictObject({
  name: z.string().min(1),
  dataType,
  shape: z.array(count).max(8),
  offset: count,
  bytes: count,
  sha256,
});

const WEIGHTS = {
  formatVersion: z.literal(FORMAT_VERSION),
  fdqVersion: z.string(),
  layoutVersion: z.literal(LAYOUT_VERSION),
  roundingContract: count,
  weights: z.strictObject({ file: z.literal(WEIGHTS_FILE), bytes: count, tensors: z.array(TENSOR) }),
};

const LAYER = z.looseObject({
  name: z.string(),
  tensor: z.string(),
  kind: z.enum(LAYER_KINDS).optional(),
  node: z.string(),
  shape: z.array(count),
  storedType: dataType,
  scheme: z.string(),
  reason: z.string(),
  bytesBefore: count,
  bytesAfter: count,
});

const DECODER = z.looseObject({
  architecture: z.string(),
  vocabSize: size,
  hiddenSize: size,
  numLayers: size,
  numHeads: size,
  numKvHeads: size,
  headDim: size,
  maxPositions: size,
  slidingWindow: size.optional(),
  tiedEmbeddings: z.boolean(),
  storedDataType: dataType,
});

const amount = z.number().nonnegative();

const ERROR = z.strictObject({
  sumW2: amount,
  sumR2: amount,
  sumWr: z.number(),
  sumE2: amount,
  maxAbs: amount,
  saturated: count,
  zeroScales: count,
});

const MODEL = z.looseObject({
  kind: z.literal('model'),
  ...WEIGHTS,
  source: z.strictObject({
    model: z.string(),
    revision: z.string().optional(),
    files: z.array(z.strictObject({ name: z.string(), bytes: count, headerSha256: sha256 })),
  }),
  scheme: z.string(),
  quantization: z.record(z.string(), z.unknown()),
  storedDataType: dataType,
  decoder: DECODER,
  layers: z.array(LAYER),
  errors: z.record(z.string(), ERROR).optional(),
});

const CACHE_ENTRY = z.looseObject({ kind: z.literal('cache'), key: sha256, model: z.string(), ...WEIGHTS });

/** fdq.json of a cache entry: only weights, for a graph that is planned anew from the checkpoint. */
export interface CacheManifest extends WeightsManifest {
  readonly kind: 'cache';
  readonly key: string;
  /** The model as the user wrote it, for listings. */
  readonly model: string;
}

/**
 * Parses fdq.json of a converted model and proves that its tensors fit their types, shapes and the file.
 * @throws UserError `invalid_checkpoint` naming the file and the field
 */
export function parseModelManifest(bytes: Uint8Array, file: string): ModelManifest {
  const manifest = parse(MODEL, bytes, file) as ModelManifest;
  checkTensors(manifest, file);
  return manifest;
}

/** The same for a cache entry. */
export function parseCacheManifest(bytes: Uint8Array, file: string): CacheManifest {
  const manifest = parse(CACHE_ENTRY, bytes, file) as CacheManifest;
  checkTensors(manifest, file);
  return manifest;
}

export function serializeManifest(manifest: ModelManifest | CacheManifest): string {
  return `${JSON.stringify(manifest, null, 1)}\n`;
}

function parse(schema: z.ZodType, bytes: Uint8Array, file: string): unknown {
  const json = parseStrictJsonObject(bytes, { what: file, maxDepth: MAX_DEPTH });
  requireVersion(json, file, 'formatVersion', FORMAT_VERSION);
  requireVersion(json, file, 'layoutVersion', LAYOUT_VERSION);
  const parsed = schema.safeParse(json, { error: nameExpected });
  if (parsed.success) return parsed.data;
  const { path, text } = describeMismatch(parsed.error, json);
  throw damaged(file, `expected "${path}" ${text}`);
}

function requireVersion(
  json: Readonly<Record<string, unknown>>,
  file: string,
  key: string,
  expected: number,
): void {
  const found = json[key];
  if (found === expected || typeof found !== 'number') return;
  throw new UserError(
    'unsupported_model',
    `Expected ${key} ${expected} in ${file} but it has ${found}: the folder is of another version of fdq.`,
    { param: file, suggestions: ['Convert the checkpoint again with this version: fdq convert.'] },
  );
}

/** Tensors lie one after the other on pages, and end where the file does. */
function checkTensors({ weights }: WeightsManifest, file: string): void {
  const names = new Set<string>();
  let end = 0;
  for (const { name, dataType: type, shape, offset, bytes } of weights.tensors) {
    const label = JSON.stringify(name);
    if (names.has(name)) throw damaged(file, `tensor ${label} is listed twice`);
    names.add(name);
    if (findByteLength(type, shape) !== bytes) {
      throw damaged(file, `tensor ${label} has ${bytes} bytes, which is not what its shape needs`);
    }
    if (offset !== end) throw damaged(file, `tensor ${label} starts at ${offset}, not at ${end}`);
    end = offset + Math.ceil(bytes / TENSOR_ALIGNMENT) * TENSOR_ALIGNMENT;
  }
  if (end !== weights.bytes) throw damaged(file, `its tensors take ${end} bytes of ${weights.bytes}`);
}

function damaged(file: string, problem: string): UserError {
  return new UserError('invalid_checkpoint', `${file} is damaged: ${problem}.`, {
    param: file,
    suggestions: ['Write the folder again: fdq convert.'],
  });
}
