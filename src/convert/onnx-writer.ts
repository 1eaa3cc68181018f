import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { BugError } from '../errors.js';
import type { Graph, Initializer } from '../graph/ir.js';
import { serializeModel } from '../graph/onnx.js';
import { SHARED_MODES } from '../load/folder/staged-folder.js';
import { layOutTensors, WeightsFile, type WeightsLayout } from '../load/folder/weights-file.js';
import { writeFailure } from '../load/folder/write-problems.js';
import type { QuantScheme } from '../quant/scheme.js';
import { describeForGenai } from './onnx/genai-config.js';
import { lowerGraph, type LoweredGraph } from './onnx/lower-graph.js';
import type { SourcedTensor } from './onnx/stock-weights.js';
import { produceWeights } from './produce-weights.js';
import { verifyOnnx } from './verify-onnx.js';
import type { ConvertJob, FormatWriter, WriteReport } from './writer.js';

const MODEL_FILE = 'model.onnx';
const DATA_FILE = 'model.onnx.data';
const GENAI_FILE = 'genai_config.json';
/** Of model.onnx, for the comparison with the free space. */
const GRAPH_BYTES = 16 << 20;

/** A folder for onnxruntime and onnxruntime-genai: model.onnx with standard operators only, and its data. */
export const onnxWriter: FormatWriter = {
  name: 'onnx',
  summary: 'a model for any ONNX Runtime, with genai_config.json',
  estimateBytes: (plan) => layOut(lowerGraph(plan.graph, plan.decoder)).bytes + GRAPH_BYTES,
  // MatMulNBits multiplies these as they lie; FP8 becomes float32 in memory.
  destination: () => ({
    bytesOf: (tensor, scheme) => (isHeldAsItLies(scheme) ? scheme.bytes(tensor) : undefined),
  }),
  check: (plan) => void lowerGraph(plan.graph, plan.decoder),
  write,
  verify: verifyOnnx,
};

function isHeldAsItLies({ native, activation }: QuantScheme): boolean {
  return native === null || (/^int[48]$/.test(native.format) && activation === null);
}

async function write(job: ConvertJob): Promise<WriteReport> {
  const { plan, dir } = job;
  const lowered = lowerGraph(plan.graph, plan.decoder);
  const layout = layOut(lowered);
  const file = await WeightsFile.create(path.join(dir, DATA_FILE), layout, SHARED_MODES.file);
  try {
    await writeTensors(job, lowered, file);
    file.finish();
  } finally {
    await file.close();
  }
  const graph = withDataIn(lowered.graph, path.join(dir, DATA_FILE), layout);
  await writeNew(path.join(dir, MODEL_FILE), serializeModel(graph, { dir }));
  const { config, generationConfig } = plan.checkpoint;
  const genai = describeForGenai(plan.decoder, config, generationConfig);
  if (genai !== undefined) {
    await writeNew(path.join(dir, GENAI_FILE), `${JSON.stringify(genai, null, 2)}\n`);
  }
  return { weightBytes: bytesOf(layout) };
}

async function writeTensors(job: ConvertJob, lowered: LoweredGraph, file: WeightsFile): Promise<void> {
  const { plan, runtime, threads, signal, onProgress } = job;
  const totalBytes = bytesOf(layOut(lowered));
  let doneBytes = 0;
  const put = async (name: string, bytes: Uint8Array): Promise<void> => {
    await file.write(name, bytes);
    doneBytes += bytes.byteLength;
    onProgress(doneBytes, totalBytes);
  };
  const bySource = new Map<string, SourcedTensor>();
  for (const tensor of lowered.tensors) {
    if ('compute' in tensor) await put(tensor.target.name, tensor.compute());
    else bySource.set(tensor.source, tensor);
  }
  const wanted = [...plan.graph.initializers].filter(([name]) => bySource.has(name));
  await produceWeights(
    { ...plan.graph, initializers: new Map(wanted) },
    {
      addon: runtime.addon,
      checkpoint: plan.checkpoint,
      threads,
      signal,
      write: async (initializer, bytes) => {
        const tensor = bySource.get(initializer.name);
        if (tensor === undefined) throw new BugError(`${initializer.name} is not part of the model`);
        await put(tensor.target.name, convertBytes(tensor, initializer, bytes));
      },
    },
  );
}

/** What is converted comes whole; what stays as it is may come in pieces. */
function convertBytes(tensor: SourcedTensor, { name }: Initializer, bytes: Uint8Array): Uint8Array {
  if (tensor.convert === undefined) return bytes;
  if (bytes.byteLength === 0) throw new BugError(`${name} came without bytes`);
  return tensor.convert(bytes);
}

function layOut({ tensors }: LoweredGraph): WeightsLayout {
  return layOutTensors(tensors.map(({ target }) => target));
}

function bytesOf({ tensors }: WeightsLayout): number {
  return tensors.reduce((sum, { bytes }) => sum + bytes, 0);
}

function withDataIn(graph: Graph, file: string, { tensors }: WeightsLayout): Graph {
  const initializers = new Map(graph.initializers);
  for (const { name, dataType, shape, offset, bytes: byteLength } of tensors) {
    initializers.set(name, { name, dataType, shape, data: { kind: 'external', file, offset, byteLength } });
  }
  return { ...graph, initializers };
}

async function writeNew(file: string, content: string | Uint8Array): Promise<void> {
  try {
    await writeFile(file, content, { flag: 'wx' });
  } catch (error) {
    throw writeFailure(file, error);
  }
}
