import { BugError, UnsupportedError, UserError } from '../errors.js';

import type { DataType, StoredWeight, WeightSource } from '../graph/ir.js';
import type { ModelConfig, TensorSpec, WeightLookup } from './architecture.js';

/** What the header of a checkpoint says of one tensor. */
export interface CheckpointTensor {
  readonly name: string;
  /** Safetensors name of the element type, e.g. `BF16`. */
  readonly dtype: string;
  readonly shape: readonly number[];
  /** Absolute path. */
  readonly file: string;
  readonly offset: number;
  readonly byteLength: number;
  /** Present when it is stored quantized; type and shape are then those of the float weight it stands for. */
  readonly stored?: StoredWeight;
}

export interface CheckedWeights {
  readonly weights: WeightLookup;
  /** Tensors of the checkpoint that the table does not name, known leftovers aside. */
  readonly unused: readonly string[];
}

const DATA_TYPES: ReadonlyMap<string, DataType> = new Map([
  ['BF16', 'bfloat16'],
  ['F16', 'float16'],
  ['F32', 'float32'],
]);

/** A buffer that older versions of transformers saved and newer ones compute. */
const LEFTOVER = '.rotary_emb.inv_freq';
const LM_HEAD = 'lm_head.weight';

/** The table with `{layer}` filled in, layer after layer where rows are consecutive. */
export function expandTensors(specs: readonly TensorSpec[], numLayers: number): readonly TensorSpec[] {
  const isOfLayer = (spec: TensorSpec): boolean => spec.name.includes('{layer}');
  const layers = Array.from({ length: numLayers }, (_, layer) => String(layer));
  const perLayer = specs.filter(isOfLayer);
  const ofLayers = layers.flatMap((layer) =>
    perLayer.map((spec) => ({
      ...spec,
      name: spec.name.replace('{layer}', layer),
      ...(spec.fusedInto === undefined ? {} : { fusedInto: spec.fusedInto.replace('{layer}', layer) }),
    })),
  );
  const first = specs.findIndex(isOfLayer);
  if (first < 0) return specs;
  const rest = specs.slice(first).filter((spec) => !isOfLayer(spec));
  return [...specs.slice(0, first), ...ofLayers, ...rest];
}

/**
 * Compares a checkpoint's headers with an architecture's table.
 * @throws UserError `invalid_checkpoint` naming the tensor, what was expected and what was found.
 */
export function checkTensors(
  specs: readonly TensorSpec[],
  config: ModelConfig,
  tensors: ReadonlyMap<string, CheckpointTensor>,
): CheckedWeights {
  const sources = new Map<string, WeightSource>();
  const members = new Map<string, WeightSource[]>();
  const expanded = expandTensors(specs, config.numLayers);
  const missing = expanded.filter((spec) => !tensors.has(spec.name));
  if (missing[0] !== undefined) throw refuseMissing(missing[0], missing.length, tensors);
  for (const spec of expanded) {
    const source = checkTensor(spec, tensors.get(spec.name) as CheckpointTensor);
    sources.set(spec.name, source);
    const group = spec.fusedInto ?? spec.name;
    members.set(group, [...(members.get(group) ?? []), source]);
  }
  const isLeftover = (name: string): boolean =>
    name.endsWith(LEFTOVER) || (config.tiedEmbeddings && name === LM_HEAD);
  return {
    weights: {
      tensor: (name) => sources.get(name) ?? refuseUnknown(name),
      members: (name) => members.get(name) ?? [],
    },
    unused: [...tensors.keys()].filter((name) => !sources.has(name) && !isLeftover(name)),
  };
}

function checkTensor(spec: TensorSpec, tensor: CheckpointTensor): WeightSource {
  const { name } = spec;
  const dataType = DATA_TYPES.get(tensor.dtype);
  if (dataType === undefined) {
    const types = [...DATA_TYPES.keys()].join(', ');
    throw new UnsupportedError(
      'invalid_checkpoint',
      `Expected tensor "${name}" to be of type ${types} but the checkpoint has ${tensor.dtype}.`,
      {
        param: name,
        suggestions: [
          'Check that config.json still has the quantization_config the checkpoint was published with.',
          'Or give the unquantized checkpoint: fdq quantizes it while loading.',
        ],
      },
    );
  }
  if (tensor.shape.join() !== spec.shape.join()) {
    throw new UserError(
      'invalid_checkpoint',
      `Expected tensor "${name}" to have shape [${spec.shape.join(', ')}] but the checkpoint has [${tensor.shape.join(', ')}].`,
      { param: name, suggestions: ['Check that config.json and the weights are of the same model.'] },
    );
  }
  const { shape, file, offset, byteLength, stored } = tensor;
  if (stored === undefined) return { name, dataType, shape, file, offset, byteLength };
  if (spec.role !== 'linear' && spec.role !== 'lm_head') throw refuseStored(name, spec.role, stored.method);
  return { name, dataType, shape, file, offset, byteLength, stored };
}

function refuseStored(name: string, role: string, method: string): UnsupportedError {
  return new UnsupportedError(
    'unsupported_model',
    `Tensor "${name}" is stored quantized (${method}), which fdq loads for linear layers and lm_head, not for ${role} tensors.`,
    { param: name, suggestions: ['Give the unquantized checkpoint: fdq quantizes it while loading.'] },
  );
}

function refuseMissing(spec: TensorSpec, count: number, tensors: ReadonlyMap<string, CheckpointTensor>): UserError {
  const example = tensors.keys().next().value;
  const others = count === 1 ? '' : `, nor ${count - 1} others`;
  const hint =
    spec.name === LM_HEAD
      ? 'If the model shares its embedding with its output, set "tie_word_embeddings": true in config.json.'
      : 'Check that config.json and the weights are of the same model and that every shard is there.';
  return new UserError(
    'invalid_checkpoint',
    `Expected tensor "${spec.name}" [${spec.shape.join(', ')}] but the checkpoint does not have it${others}.`,
    {
      param: spec.name,
      suggestions: example === undefined ? [hint] : [hint, `The checkpoint has, for example, "${example}".`],
    },
  );
}

function refuseUnknown(name: string): never {
  throw new BugError(`The architecture asks for tensor "${name}", which is not in its table`);
}
