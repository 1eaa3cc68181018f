import { createHash } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { serializeModel } from '../graph/onnx.js';
import type { Graph, Initializer } from '../graph/ir.js';
import type { Checkpoint } from '../hub/checkpoint.js';
import { GRAPH_FILE, MANIFEST_FILE, WEIGHTS_FILE } from '../hub/layout.js';
import { openWeightFile, readExactly } from '../hub/weight-file.js';
import { isBfloat16Model } from '../load/arithmetic.js';
import {
  FORMAT_VERSION,
  LAYOUT_VERSION,
  ROUNDING_CONTRACT,
  serializeManifest,
  type ModelManifest,
  type SourceFile,
} from '../load/folder/manifest.js';
import { SHARED_MODES } from '../load/folder/staged-folder.js';
import { layOutTensors, WeightsFile, type WrittenTensor } from '../load/folder/weights-file.js';
import { writeFailure } from '../load/folder/write-problems.js';
import type { CheckpointPlan } from '../load/plan.js';
import { FDQ_VERSION } from '../version.js';
import { LayerMeter } from './layer-meter.js';
import { produceWeights } from './produce-weights.js';
import { verifyFdq } from './verify-fdq.js';
import type { ConvertJob, FormatWriter, WriteReport } from './writer.js';

/** Of model.onnx and fdq.json, for the comparison with the free space. */
const GRAPH_BYTES = 16 << 20;

/** A folder `fdq serve` maps: model.onnx, weights.bin with what the kernels read, and fdq.json. */
export const fdqWriter: FormatWriter = {
  name: 'fdq',
  summary: 'what fdq serve would run, mapped at its start',
  estimateBytes: ({ graph }) => layOutTensors(graph.initializers.values()).bytes + GRAPH_BYTES,
  check: () => undefined,
  write,
  verify: verifyFdq,
};

async function write(job: ConvertJob): Promise<WriteReport> {
  const { plan, dir } = job;
  const layout = layOutTensors(plan.graph.initializers.values());
  const totalBytes = layout.tensors.reduce((sum, { bytes }) => sum + bytes, 0);
  const file = await WeightsFile.create(path.join(dir, WEIGHTS_FILE), layout, SHARED_MODES.file);
  const meter = new LayerMeter(job);
  let written: readonly WrittenTensor[];
  try {
    let doneBytes = 0;
    await produceWeights(plan.graph, {
      addon: job.runtime.addon,
      checkpoint: plan.checkpoint,
      threads: job.threads,
      signal: job.signal,
      inspect: (layer, parts) => meter.measure(layer, parts),
      write: async ({ name }, bytes) => {
        await file.write(name, bytes);
        doneBytes += bytes.byteLength;
        job.onProgress(doneBytes, totalBytes);
      },
    });
    written = file.finish();
  } finally {
    await file.close();
    await meter.close();
  }
  const model = serializeModel(withWeightsIn(plan.graph, dir, written), { dir });
  await writeText(path.join(dir, GRAPH_FILE), model);
  const manifest = {
    ...(await describeModel(plan, { bytes: layout.bytes, tensors: written })),
    errors: meter.errors,
  };
  await writeText(path.join(dir, MANIFEST_FILE), serializeManifest(manifest));
  return { weightBytes: totalBytes };
}

/** The same graph with every large initializer in weights.bin. */
function withWeightsIn(graph: Graph, dir: string, tensors: readonly WrittenTensor[]): Graph {
  const file = path.join(dir, WEIGHTS_FILE);
  const initializers = new Map<string, Initializer>(graph.initializers);
  for (const { name, offset, bytes } of tensors) {
    const initializer = graph.initializers.get(name) as Initializer;
    initializers.set(name, {
      ...initializer,
      data: { kind: 'external', file, offset, byteLength: bytes },
    });
  }
  return { ...graph, initializers };
}

async function describeModel(
  plan: CheckpointPlan,
  weights: Omit<ModelManifest['weights'], 'file'>,
): Promise<ModelManifest> {
  const { checkpoint, quantization } = plan;
  const { offline: _, ...flags } = quantization;
  return {
    kind: 'model',
    formatVersion: FORMAT_VERSION,
    fdqVersion: FDQ_VERSION,
    layoutVersion: LAYOUT_VERSION,
    roundingContract: ROUNDING_CONTRACT,
    source: {
      model: checkpoint.reference,
      ...(checkpoint.revision === undefined ? {} : { revision: checkpoint.revision }),
      files: await Promise.all(checkpoint.files.map(describeFile)),
    },
    scheme: plan.scheme,
    quantization: flags,
    storedDataType: isBfloat16Model(plan.floatGraph) ? 'bfloat16' : 'float32',
    decoder: plan.decoder,
    layers: plan.layers,
    weights: { file: WEIGHTS_FILE, ...weights },
  };
}

/** Name, size and digest of the header, which starts with its own length. */
async function describeFile(identity: Checkpoint['files'][number]): Promise<SourceFile> {
  const handle = await openWeightFile(identity.path, identity);
  try {
    const prefix = Buffer.alloc(8);
    await readExactly(handle, prefix, 0);
    const header = Buffer.alloc(Number(prefix.readBigUInt64LE()));
    await readExactly(handle, header, prefix.byteLength);
    const headerSha256 = createHash('sha256').update(header).digest('hex');
    return { name: path.basename(identity.path), bytes: identity.size, headerSha256 };
  } finally {
    await handle.close();
  }
}

async function writeText(file: string, content: string | Uint8Array): Promise<void> {
  try {
    await writeFile(file, content, { flag: 'wx' });
  } catch (error) {
    throw writeFailure(file, error);
  }
}
