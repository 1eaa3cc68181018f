import onnxProto from 'onnx-proto';

import { readGraph } from './onnx-read.js';
import { findDamage, invalidModel, nameFile, unsupportedModel, unsupportedVersion } from './onnx-problems.js';
import { toSafeInteger } from './onnx-tensors.js';
import { writeGraph } from './onnx-write.js';

import type { Graph } from './ir.js';
import type { ParseOptions } from './onnx-read.js';
import type { SerializeOptions } from './onnx-write.js';

const { ModelProto } = onnxProto.onnx;
type Model = InstanceType<typeof ModelProto>;

/** ONNX 1.16: the first IR version with 4-bit integers, which every supported runtime reads. */
const IR_VERSION = 10;
const NEWEST_IR_VERSION = 13;
const OLDEST_IR_VERSION = 3;

/**
 * The bytes of an ONNX ModelProto. Inline initializers are part of them; lazy ones (checkpoint weights and
 * parts of quantized layers) name the empty external file `fdq-weights` with their true length, which is the
 * form in which ONNX Runtime accepts their memory through AddInitializer.
 */
export function serializeModel(graph: Graph, options: SerializeOptions = {}): Uint8Array {
  return ModelProto.encode({
    irVersion: IR_VERSION,
    producerName: 'fdq',
    opsetImport: [...graph.opsets].map(([domain, version]) => ({ domain, version })),
    graph: writeGraph(graph, options),
    metadataProps: [...graph.metadata].map(([key, value]) => ({ key, value })),
  }).finish();
}

/**
 * Reads an ONNX model and proves that every byte it refers to exists.
 * @throws UserError `invalid_checkpoint` for a damaged or hostile file, `unsupported_model` for ONNX features fdq
 * does not handle; nothing else, whatever the bytes are. Each names `options.file`.
 */
export function parseModel(bytes: Uint8Array, options: ParseOptions): Graph {
  try {
    return readModel(bytes, options);
  } catch (error) {
    throw nameFile(error, options);
  }
}

function readModel(bytes: Uint8Array, options: ParseOptions): Graph {
  const model = decode(bytes);
  checkVersion(model, bytes);
  if (model.functions.length > 0)
    throw unsupportedModel('The model defines functions, which fdq does not inline');
  if (model.trainingInfo.length > 0) throw unsupportedModel('The model holds training information');
  if (model.graph === null || model.graph === undefined) throw invalidModel('The model has no graph');
  const opsets = new Map<string, number>();
  for (const { domain, version } of model.opsetImport) {
    const name = domain === 'ai.onnx' ? '' : (domain ?? '');
    opsets.set(name, toSafeInteger(version, `the version of domain "${name}"`));
  }
  const metadata = new Map(model.metadataProps.map(({ key, value }) => [key ?? '', value ?? '']));
  return readGraph(model.graph, { opsets, metadata }, options);
}

function decode(bytes: Uint8Array): Model {
  try {
    return ModelProto.decode(bytes);
  } catch (error) {
    const problem =
      findDamage(bytes) ??
      (error instanceof RangeError
        ? 'The file is cut short or damaged: one of its fields reaches beyond its end'
        : 'The file is not an ONNX model: its protobuf encoding is damaged');
    throw invalidModel(problem, error);
  }
}

/** Every model states its IR version: bytes without one are something else that happens to decode. */
function checkVersion(model: Model, bytes: Uint8Array): void {
  if (!Object.hasOwn(model, 'irVersion')) {
    throw invalidModel(findDamage(bytes) ?? 'The file is not an ONNX model: it states no IR version');
  }
  const version = toSafeInteger(model.irVersion, 'ir_version');
  if (version >= OLDEST_IR_VERSION && version <= NEWEST_IR_VERSION) return;
  const problem = findDamage(bytes);
  if (problem !== undefined) throw invalidModel(problem);
  throw unsupportedVersion(version, OLDEST_IR_VERSION, NEWEST_IR_VERSION);
}
