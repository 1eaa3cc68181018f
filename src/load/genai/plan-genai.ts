import path from 'node:path';
import { counted } from '../../counted.js';
import { UserError } from '../../errors.js';
import type { Graph, Initializer } from '../../graph/ir.js';
import { parseModel } from '../../graph/onnx.js';
import { readGenerationFile, type Checkpoint, type CheckpointLocation } from '../../hub/checkpoint.js';
import { createFolderSource } from '../../hub/model-source.js';
import { identify, openWeightFile, readSmallFile, type FileIdentity } from '../../hub/weight-file.js';
import { listFolder, resolveModelFile } from '../../hub/weight-files.js';
import type { LayerReport } from '../../quant/report.js';
import type { IsaName } from '../../runtime/addon.js';
import {
  applyQuantization,
  requestOf,
  weightBytesOf,
  type QuantizationFlags,
} from '../apply-quantization.js';
import { chooseArithmetic, isBfloat16Model } from '../arithmetic.js';
import type { CheckpointPlan, PlanOptions, ServingPlan } from '../plan.js';
import { readGenaiConfig, type GenaiConfig } from './genai-config.js';
import { packDecoder } from './rewrite-graph.js';

/** Weights lie in files of their own; what is in the .onnx file is read whole. */
const MAX_GRAPH_BYTES = 512 * 1024 * 1024;

/** What serving such a folder takes, and what its float layers were planned from. */
export type GenaiPlan = ServingPlan & Pick<CheckpointPlan, 'floatGraph' | 'plan'>;

/**
 * What serving a folder of onnxruntime-genai takes: a float decoder is quantized as a checkpoint is, layers that are
 * MatMulNBits stay what they are.
 * @throws UserError `invalid_checkpoint` for files that do not fit, `already_quantized` when flags ask for other layers
 *   than the model has; UnsupportedError `unsupported_model` naming what of the graph is not understood
 */
export async function planGenaiFolder(
  location: CheckpointLocation,
  options: PlanOptions,
  isa: IsaName,
): Promise<GenaiPlan> {
  const { dir, reference } = location;
  const config = await readGenaiConfig(dir);
  const file = await resolveModelFile(dir, config.filename);
  const parsed = parseModel(await readSmallFile(file, MAX_GRAPH_BYTES), {
    dir,
    file: path.join(dir, config.filename),
  });
  const { graph, info, stored } = packDecoder(parsed, config);
  const asked = flagsFor(reference, options, stored);
  const chosen = await options.chooseQuantization?.({ files: await identifyFiles(graph) }, graph);
  const flags = chosen ?? asked;
  const { kvCacheDtype } = requestOf(flags);
  const arithmetic = chooseArithmetic({
    isBfloat16: isBfloat16Model(graph),
    dtype: options.dtype,
    kv: kvCacheDtype,
    isa,
  });
  const quantized = applyQuantization(graph, flags, arithmetic);
  const finished = mapConstants(quantized.graph);
  return {
    checkpoint: await describeFolder(location, config, finished),
    decoder: info,
    graph: finished,
    floatGraph: graph,
    plan: quantized.plan,
    scheme: schemeOf(stored) ?? quantized.scheme,
    layers: [...stored, ...quantized.layers],
    weightBytes: weightBytesOf(finished),
    arithmetic,
    warnings: [...warnAboutWindow(config, finished), ...quantized.plan.warnings],
  };
}

/** The builder writes models whose window is in genai_config.json only; ONNX Runtime then computes none. */
function warnAboutWindow({ slidingWindow, contextLength }: GenaiConfig, { nodes }: Graph): readonly string[] {
  const hasWindow = nodes.some(({ attributes: { window } }) => window?.type === 'int' && window.value > 0);
  if (hasWindow || slidingWindow === undefined || slidingWindow >= contextLength) return [];
  return [
    `genai_config.json names a sliding window of ${slidingWindow} that no attention of the graph has: ` +
      'every position sees all before it, as in onnxruntime-genai.',
  ];
}

/** One name when all stored layers have the same scheme. */
function schemeOf(stored: readonly LayerReport[]): string | undefined {
  const names = new Set(stored.map(({ scheme }) => scheme));
  return names.size > 1 ? 'mix_quant' : [...names][0];
}

/** A model with stored layers takes no flag about layers. */
function flagsFor(
  reference: string,
  options: PlanOptions,
  stored: readonly LayerReport[],
): QuantizationFlags {
  const { quantization, quantizationConfig, quantizeLmHead, quantizeEmbeddings, kvCacheDtype } = options;
  const isChosen = options.chooseQuantization !== undefined;
  const kv = kvCacheDtype === undefined ? {} : { kvCacheDtype };
  const asked = {
    ...(quantization === undefined ? {} : { quantization }),
    ...(quantizationConfig === undefined ? {} : { quantizationConfig }),
    ...(quantizeLmHead === undefined ? {} : { quantizeLmHead }),
    ...(quantizeEmbeddings === undefined ? {} : { quantizeEmbeddings }),
  };
  const scheme = schemeOf(stored);
  if (scheme === undefined) return { ...asked, ...kv };
  if (isChosen || Object.keys(asked).length > 0) {
    throw new UserError(
      'already_quantized',
      `${counted(stored.length, 'layer')} of ${JSON.stringify(reference)} ${stored.length === 1 ? 'is' : 'are'} stored as ${scheme}, and cannot become others now.`,
      {
        param: 'quantization',
        suggestions: [
          'Leave the quantization flags out: the model is served as it is stored.',
          'For other layers serve the checkpoint it was exported from, or export it in float32 (-p fp32).',
        ],
      },
    );
  }
  return kv;
}

/** Constants that stay as they are stored are mapped, each as the weight it is. */
function mapConstants(graph: Graph): Graph {
  const map = (initializer: Initializer): Initializer => {
    const { name, dataType, shape, data } = initializer;
    if (data.kind !== 'external') return initializer;
    const { file, offset, byteLength } = data;
    const source = { name, dataType, shape, file, offset, byteLength };
    return { name, dataType, shape, data: { kind: 'weight', members: [source] } };
  };
  return {
    ...graph,
    initializers: new Map([...graph.initializers].map(([name, initializer]) => [name, map(initializer)])),
  };
}

async function describeFolder(
  location: CheckpointLocation,
  { eosTokenIds, generation }: GenaiConfig,
  graph: Graph,
): Promise<Checkpoint> {
  const files = await identifyFiles(graph);
  const { dir } = location;
  const generationFile = await readGenerationFile(createFolderSource(dir, await listFolder(dir)));
  return {
    ...location,
    config: { eos_token_id: eosTokenIds },
    generationConfig: generationFile ?? generation,
    tensors: new Map(),
    totalBytes: files.reduce((sum, { size }) => sum + size, 0),
    files,
    warnings: [],
  };
}

/** The files of external data, as they were when the graph's places in them were checked. */
async function identifyFiles(graph: Graph): Promise<readonly FileIdentity[]> {
  const paths = new Set<string>();
  for (const { data } of graph.initializers.values()) {
    const members =
      data.kind === 'weight' ? data.members : data.kind === 'quantized' ? data.layer.members : [];
    for (const { file } of members) paths.add(file);
  }
  return Promise.all(
    [...paths].map(async (file) => {
      const handle = await openWeightFile(file);
      try {
        return await identify(handle, file);
      } finally {
        await handle.close();
      }
    }),
  );
}
