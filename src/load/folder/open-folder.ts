import path from 'node:path';
import { counted } from '../../counted.js';
import { UserError } from '../../errors.js';
import type { Graph, Initializer } from '../../graph/ir.js';
import { parseModel } from '../../graph/onnx.js';
import { findLayout, GRAPH_FILE, MANIFEST_FILE, WEIGHTS_FILE } from '../../hub/layout.js';
import { listFolder, resolveModelFile } from '../../hub/weight-files.js';
import { identify, openWeightFile, readSmallFile, type FileIdentity } from '../../hub/weight-file.js';
import { MAX_MANIFEST_BYTES, parseModelManifest, type ModelManifest } from './manifest.js';
import { checkDecoderGraph } from './check-graph.js';
import type { TensorPlace } from './weights-file.js';

const MAX_GRAPH_BYTES = 256 * 1024 * 1024;
const CONVERT_AGAIN = 'Convert the checkpoint again: fdq convert --force.';

/** A folder that `fdq convert` wrote, every size and place in it proven; no weight is read. */
export interface FdqFolder {
  readonly dir: string;
  readonly manifest: ModelManifest;
  /** Large initializers are `weight`s of one member in weights.bin, which are mapped. */
  readonly graph: Graph;
  readonly weights: FileIdentity;
}

/** Whether `fdq convert` wrote the folder. */
export async function isFdqFolder(dir: string): Promise<boolean> {
  return findLayout(await listFolder(dir)) === 'fdq';
}

/**
 * Opens what `fdq convert` wrote.
 * @throws UserError `invalid_checkpoint` naming file and problem, `unsupported_model` for one of another version
 */
export async function openFdqFolder(dir: string): Promise<FdqFolder> {
  const manifestFile = await resolveModelFile(dir, MANIFEST_FILE);
  const manifest = parseModelManifest(await readSmallFile(manifestFile, MAX_MANIFEST_BYTES), MANIFEST_FILE);
  const weights = await identifyWeights(dir, manifest.weights.bytes);
  const graphFile = await resolveModelFile(dir, GRAPH_FILE);
  const parsed = parseModel(await readSmallFile(graphFile, MAX_GRAPH_BYTES), {
    dir,
    file: path.join(dir, GRAPH_FILE),
    remedy: CONVERT_AGAIN,
  });
  checkDecoderGraph(parsed, manifest.decoder);
  return { dir, manifest, graph: matchTensors(parsed, manifest.weights.tensors, weights.path), weights };
}

/**
 * weights.bin as it lies there now.
 * @throws UserError `invalid_checkpoint` when it has another size than fdq.json says
 */
export async function identifyWeights(dir: string, bytes: number): Promise<FileIdentity> {
  const file = await resolveModelFile(dir, WEIGHTS_FILE);
  const handle = await openWeightFile(file);
  try {
    const found = await identify(handle, file);
    if (found.size !== bytes) {
      throw mismatch(
        dir,
        `${WEIGHTS_FILE} has ${found.size} bytes, but ${MANIFEST_FILE} says ${bytes}`,
        WEIGHTS_FILE,
      );
    }
    return found;
  } finally {
    await handle.close();
  }
}

/** Makes the graph's external tensors weights to map, when fdq.json lists exactly the same ones. */
function matchTensors(graph: Graph, tensors: readonly TensorPlace[], file: string): Graph {
  const listed = new Map(tensors.map((tensor) => [tensor.name, tensor]));
  const initializers = new Map<string, Initializer>();
  let matched = 0;
  for (const [name, initializer] of graph.initializers) {
    const { data } = initializer;
    if (data.kind !== 'external') {
      initializers.set(name, initializer);
      continue;
    }
    const tensor = listed.get(name);
    if (tensor === undefined || !isSameTensor(initializer, tensor) || data.file !== file) {
      throw mismatch(path.dirname(file), `tensor ${JSON.stringify(name)} is another one in ${GRAPH_FILE}`);
    }
    matched++;
    initializers.set(name, mapTensor(tensor, file));
  }
  if (matched !== listed.size)
    throw mismatch(path.dirname(file), `${GRAPH_FILE} lacks ${counted(listed.size - matched, 'tensor')}`);
  return { ...graph, initializers };
}

function isSameTensor({ dataType, shape, data }: Initializer, tensor: TensorPlace): boolean {
  return (
    data.kind === 'external' &&
    dataType === tensor.dataType &&
    shape.join() === tensor.shape.join() &&
    data.offset === tensor.offset &&
    data.byteLength === tensor.bytes
  );
}

/** An initializer that is mapped from weights.bin. */
export function mapTensor({ name, dataType, shape, offset, bytes }: TensorPlace, file: string): Initializer {
  const source = { name, dataType, shape, file, offset, byteLength: bytes };
  return { name, dataType, shape, data: { kind: 'weight', members: [source] } };
}

function mismatch(dir: string, problem: string, param = MANIFEST_FILE): UserError {
  return new UserError('invalid_checkpoint', `The files in ${dir} are not of one conversion: ${problem}.`, {
    param,
    suggestions: [CONVERT_AGAIN],
  });
}
