import { createHash } from 'node:crypto';
import { UserError } from '../../errors.js';
import type { StoredFormat, StoredWeight } from '../../graph/ir.js';
import type { ModelSource, WeightReader } from '../model-source.js';
import { quote } from '../quote.js';
import type { TensorInfo } from '../safetensors.js';
import type { FileIdentity } from '../weight-file.js';
import type { QuantizationConfig } from './quantization-config.js';
import { nameStoredScheme } from './scheme-name.js';
import { KV_SCALES_WARNING } from './stored-method.js';
import { StoredModule } from './stored-module.js';

/** A tensor as the model sees it: one that lies in a file, or one that is stored quantized in several. */
export type ModelTensor = TensorInfo & {
  /** `dtype`, `shape` and `byteLength` are then those of the float weight it stands for, and of all its parts. */
  readonly stored?: StoredWeight;
};

export interface StoredTensors {
  readonly tensors: ReadonlyMap<string, ModelTensor>;
  readonly warnings: readonly string[];
}

/** The weight files, and what opens them. */
interface WeightPlaces {
  readonly files: readonly FileIdentity[];
  readonly source: ModelSource;
}

/** Tensors read at the same time. */
const VALUE_READERS = 8;
/** Tensors read for their values are at most this large: the groups of a million columns. */
const MAX_VALUE_BYTES = 1 << 23;
const FLOAT_TYPES = ['BF16', 'F16', 'F32'] as const;
/** Scales of keys and values, which fdq computes itself. */
const KV_SCALE = /\.(?:[kv]_scale|kv_scale|[kv]_zero_point|[kv]_proj\.output_scale)$/;

/**
 * The tensors of a quantized checkpoint as a model sees them: one float weight in place of the parts of each quantized
 * one. Reads only small tensors that decide about the graph.
 * @throws UserError `invalid_checkpoint` naming the tensor that is missing or not what the config says.
 */
export async function readStoredTensors(
  { method, reader }: QuantizationConfig,
  tensors: ReadonlyMap<string, TensorInfo>,
  { files, source }: WeightPlaces,
): Promise<StoredTensors> {
  const modules = groupByModule(tensors);
  await readValues(modules, reader.valueSuffixes, { files, source });
  const matrices = [...modules.values()].flatMap((module) => {
    const matrix = reader.describe(module);
    return matrix === undefined ? [] : [{ module, matrix }];
  });
  if (matrices.length === 0) {
    throw new UserError(
      'invalid_checkpoint',
      `The quantization config says that the weights are quantized (${method.name}), but no tensor is.`,
      {
        param: 'quantization_config',
        suggestions: ['Remove the quantization config if the weights are BF16, FP16 or FP32.'],
      },
    );
  }
  const result = new Map<string, ModelTensor>(tensors);
  for (const { module } of matrices)
    for (const suffix of module.used) result.delete(`${module.name}.${suffix}`);
  const kvScales = [...result.keys()].filter((name) => KV_SCALE.test(name));
  kvScales.forEach((name) => result.delete(name));
  const dtype = mostUsedFloat(result);
  const shared = new Map<string, StoredFormat>();
  for (const { module, matrix } of matrices) {
    const stored = {
      method: method.name,
      scheme: nameStoredScheme(matrix.format),
      format: shareFormat(shared, matrix.format),
      parts: matrix.parts,
    };
    const name = `${module.name}.weight`;
    const { file, offset } = matrix.parts.codes;
    const byteLength = sumBytes(stored);
    result.set(name, { name, dtype, shape: [matrix.n, matrix.k], file, offset, byteLength, stored });
  }
  const kvWarning =
    kvScales.length > 0 && !reader.warnings.includes(KV_SCALES_WARNING) ? [KV_SCALES_WARNING] : [];
  return { tensors: result, warnings: [...reader.warnings, ...kvWarning] };
}

function groupByModule(tensors: ReadonlyMap<string, TensorInfo>): ReadonlyMap<string, StoredModule> {
  const modules = new Map<string, StoredModule>();
  for (const [name, tensor] of tensors) {
    const dot = name.lastIndexOf('.');
    if (dot < 1) continue;
    const owner = name.slice(0, dot);
    const module = modules.get(owner) ?? new StoredModule(owner);
    modules.set(owner, module);
    module.add(name.slice(dot + 1), tensor);
  }
  return modules;
}

async function readValues(
  modules: ReadonlyMap<string, StoredModule>,
  suffixes: readonly string[],
  { files, source }: WeightPlaces,
): Promise<void> {
  const wanted = [...modules.values()].flatMap((module) =>
    suffixes.flatMap((suffix) => {
      const tensor = module.peek(suffix);
      return tensor === undefined ? [] : [{ module, suffix, tensor }];
    }),
  );
  for (const identity of files) {
    const inFile = wanted.filter(({ tensor }) => tensor.file === identity.path);
    if (inFile.length === 0) continue;
    const reader = await source.reopen(identity);
    try {
      while (inFile.length > 0) {
        const batch = inFile.splice(0, VALUE_READERS).map(async ({ module, suffix, tensor }) => {
          module.setValue(suffix, await readValue(reader, tensor));
        });
        await Promise.all(batch);
      }
    } finally {
      await reader.close();
    }
  }
}

async function readValue(reader: WeightReader, tensor: TensorInfo): Promise<Uint8Array> {
  if (tensor.byteLength > MAX_VALUE_BYTES) {
    throw new UserError(
      'invalid_checkpoint',
      `Expected at most ${MAX_VALUE_BYTES} bytes in tensor ${quote(tensor.name)} but it has ${tensor.byteLength}.`,
      { param: tensor.name, suggestions: ['The checkpoint is damaged: get it again.'] },
    );
  }
  const bytes = new Uint8Array(tensor.byteLength);
  if (await reader.read(bytes, tensor.offset)) return bytes;
  throw new UserError('invalid_checkpoint', `${quote(tensor.name)} was truncated while fdq read it.`, {
    param: tensor.name,
    suggestions: ['Wait until nothing writes to the model folder any more, then start again.'],
  });
}

/** Equal formats become one object, by which layers that can be fused are found. */
function shareFormat(shared: Map<string, StoredFormat>, format: StoredFormat): StoredFormat {
  const { columnOrder, ...rest } = format;
  const order = columnOrder === undefined ? '' : createHash('sha256').update(columnOrder).digest('base64');
  const key = `${JSON.stringify(rest)} ${order}`;
  const found = shared.get(key) ?? format;
  shared.set(key, found);
  return found;
}

/** What most bytes of the tensors that are not quantized are stored as. */
function mostUsedFloat(tensors: ReadonlyMap<string, TensorInfo>): (typeof FLOAT_TYPES)[number] {
  const bytes = (dtype: string): number =>
    [...tensors.values()].reduce(
      (sum, tensor) => (tensor.dtype === dtype ? sum + tensor.byteLength : sum),
      0,
    );
  return FLOAT_TYPES.reduce((best, dtype) => (bytes(dtype) > bytes(best) ? dtype : best));
}

function sumBytes({ parts }: StoredWeight): number {
  const { codes, scales, blockScales, zeroPoints } = parts;
  return [codes, scales, blockScales, zeroPoints].reduce((sum, part) => sum + (part?.byteLength ?? 0), 0);
}
