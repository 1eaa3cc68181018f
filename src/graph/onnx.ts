import onnxProto from 'onnx-proto';

import { readGraph } from './onnx-read.js';
import { invalidModel, unsupportedModel } from './onnx-problems.js';
import { toSafeInteger } from './onnx-tensors.js';
import { writeGraph } from './onnx-write.js';

import type { Graph } from './ir.js';
import type { ParseOptions } from './onnx-read.js';
import type { SerializeOptions } from './onnx-write.js';

const { ModelProto } = onnxProto.onnx;

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
 * does not handle; nothing else, whatever the bytes are.
 */
export function parseModel(bytes: Uint8Array, options: ParseOptions): Graph {
  const model = decode(bytes);
  const irVersion = toSafeInteger(model.irVersion, 'ir_version');
  if (irVersion < OLDEST_IR_VERSION || irVersion > NEWEST_IR_VERSION) {
    throw unsupportedModel(
      `Expected IR version ${OLDEST_IR_VERSION} to ${NEWEST_IR_VERSION} but the model has ${irVersion}`,
    );
  }
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

function decode(bytes: Uint8Array): InstanceType<typeof ModelProto> {
  try {
    return ModelProto.decode(bytes);
  } catch (error) {
    throw invalidModel('The file is not an ONNX model: its protobuf encoding is damaged', error);
  }
}
