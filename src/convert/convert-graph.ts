import { rm, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { UnsupportedError, UserError } from '../errors.js';
import { byteLengthOf } from '../graph/data-types.js';
import type { Graph, Initializer } from '../graph/ir.js';
import { parseModel, serializeModel } from '../graph/onnx.js';
import { listInitializers, mapInitializers } from '../graph/scopes.js';
import type { FileIdentity } from '../hub/checkpoint.js';
import { identify, openWeightFile, readSmallFile } from '../hub/weight-file.js';
import { requestOf } from '../load/apply-quantization.js';
import { StagedFolder } from '../load/folder/staged-folder.js';
import { layOutTensors, WeightsFile, type WeightsLayout } from '../load/folder/weights-file.js';
import { writeFailure } from '../load/folder/write-problems.js';
import { makePlan } from '../quant/plan.js';
import { summarizeQuantization } from '../quant/report.js';
import { quantizeGraph } from '../quant/rewrite.js';
import { loadRuntime } from '../runtime/load-addon.js';
import type { ConvertObserver, ConvertOptions, ConvertReport } from './convert.js';
import { findLayers } from './graph-input/find-layers.js';
import { rewriteModel, type RewrittenModel } from './graph-input/rewrite-model.js';
import { copyModelFiles } from './model-files.js';
import type { SourcedTensor } from './onnx/stock-weights.js';
import { produceWeights } from './produce-weights.js';
import { checkFreeSpace, checkTarget } from './target.js';

/** Protobuf holds at most this. */
const MAX_MODEL_BYTES = 2 ** 31 - 1;
const MODEL_FILE = 'model.onnx';
const DATA_FILE = 'model.onnx.data';
/** Weights from inside of the model file, while they are quantized. */
const INLINE_FILE = 'inline-weights';
const GRAPH_BYTES = 16 << 20;
/** Layers named in the warning about those that stay. */
const SHOWN = 3;

/**
 * Quantizes the MatMul, Gemm and MoE nodes of any float ONNX model that have constant matrices, in its graph and in the
 * bodies of If, Loop and Scan, and writes it with operators of ONNX Runtime in their place; inputs, outputs and all
 * other nodes stay. External data is never read whole.
 * @throws UserError as `convert`; UnsupportedError `unsupported_model` naming what is not handled
 */
export async function convertGraph(
  options: ConvertOptions,
  observer: ConvertObserver,
): Promise<ConvertReport> {
  const { load, signal } = options;
  refuseOptions(options);
  const request = requestOf({ ...load, offline: true });
  observer.phase('plan', 'start');
  const file = path.resolve(load.model);
  const dir = path.dirname(file);
  const target = await checkTarget(options.output, { force: options.force, source: dir });
  const source = parseModel(await readSmallFile(file, MAX_MODEL_BYTES), { dir });
  const staged = await StagedFolder.create(target);
  try {
    const inlineFile = path.join(staged.dir, INLINE_FILE);
    const view = findLayers(source, inlineFile);
    if (view.graph.nodes.length === 0) throw refuseNothing(load.model, view.skipped);
    const plan = makePlan({ graph: view.graph, ...request });
    const quantized = quantizeGraph(view.graph, plan, { compute: 'float32' });
    for (const warning of [...plan.warnings, ...describeSkipped(view.skipped)]) observer.warn(warning);
    const rewritten = rewriteModel(source, view, quantized.graph);
    const layout = layOutTensors([...rewritten.tensors.map((tensor) => tensor.target), ...rewritten.kept]);
    await checkFreeSpace(target, layout.bytes + GRAPH_BYTES);
    observer.phase('plan', 'done');
    observer.phase('write', 'start');
    await writeNew(inlineFile, Buffer.concat(view.inline));
    const weightBytes = await writeModel(
      { source, quantized: quantized.graph, rewritten, inlineFile, dir: staged.dir },
      options,
      observer,
    );
    await rm(inlineFile);
    await copyModelFiles(dir, staged.dir);
    observer.phase('write', 'done');
    signal.throwIfAborted();
    if (!(await staged.publish({ replace: options.force }))) {
      throw new UserError('output_exists', `${JSON.stringify(target)} appeared while fdq was writing it.`, {
        param: 'output',
        suggestions: ['Choose another folder, or replace it: --force.'],
      });
    }
    return {
      output: target,
      format: options.format,
      scheme: request.name,
      weightBytes,
      checkpointBytes: sumBytes(listInitializers(source)),
      summary: summarizeQuantization(quantized.layers),
    };
  } finally {
    await staged.discard();
  }
}

/** Whether the model is one .onnx file, whatever it computes. */
export async function isOnnxFile(model: string): Promise<boolean> {
  if (!model.endsWith('.onnx')) return false;
  return stat(model).then(
    (found) => found.isFile(),
    () => false,
  );
}

interface GraphJob {
  readonly source: Graph;
  /** The layers, quantized. */
  readonly quantized: Graph;
  readonly rewritten: RewrittenModel;
  readonly inlineFile: string;
  readonly dir: string;
}

async function writeModel(
  job: GraphJob,
  { load, signal }: ConvertOptions,
  observer: ConvertObserver,
): Promise<number> {
  const { source, quantized, rewritten, dir } = job;
  const { tensors, kept } = rewritten;
  const layout = layOutTensors([...tensors.map(({ target }) => target), ...kept]);
  const totalBytes = layout.tensors.reduce((sum, { bytes }) => sum + bytes, 0);
  const bySource = new Map<string, SourcedTensor[]>();
  for (const tensor of tensors) {
    if ('source' in tensor) bySource.set(tensor.source, [...(bySource.get(tensor.source) ?? []), tensor]);
  }
  const produced = [...quantized.initializers.values()].filter(({ name }) => bySource.has(name));
  const dataFile = path.join(dir, DATA_FILE);
  const data = await WeightsFile.create(dataFile, layout);
  try {
    let doneBytes = 0;
    const files = await identifyFiles(source, job.inlineFile);
    await produceWeights(
      { ...quantized, initializers: new Map([...produced, ...kept].map((each) => [each.name, each])) },
      {
        addon: loadRuntime().addon,
        checkpoint: { files },
        threads: load.threads,
        signal,
        write: async ({ name }, bytes) => {
          const targets = bySource.get(name) ?? [{ target: { name }, convert: undefined }];
          for (const { target, convert } of targets) {
            const converted = convert?.(bytes) ?? bytes;
            await data.write(target.name, converted);
            doneBytes += converted.byteLength;
          }
          observer.phase('write', 'progress', { doneBytes, totalBytes });
        },
      },
    );
    data.finish();
  } finally {
    await data.close();
  }
  const graph = placeTensors(rewritten, dataFile, layout);
  await writeNew(path.join(dir, MODEL_FILE), serializeModel(graph, { dir }));
  return totalBytes;
}

/** The graph with its large tensors in the data file. */
function placeTensors({ graph, places }: RewrittenModel, file: string, layout: WeightsLayout): Graph {
  const byName = new Map(layout.tensors.map((tensor) => [tensor.name, tensor]));
  return mapInitializers(graph, (initializer) => {
    const place = byName.get(places.get(initializer) ?? '');
    if (place === undefined) return initializer;
    const { offset, bytes: byteLength } = place;
    return { ...initializer, data: { kind: 'external', file, offset, byteLength } };
  });
}

/** Files that weights are read from, as they are now. */
async function identifyFiles(source: Graph, inlineFile: string): Promise<readonly FileIdentity[]> {
  const names = new Set([inlineFile]);
  for (const { data } of listInitializers(source)) if (data.kind === 'external') names.add(data.file);
  const files: FileIdentity[] = [];
  for (const name of names) {
    const handle = await openWeightFile(name);
    try {
      files.push(await identify(handle, name));
    } finally {
      await handle.close();
    }
  }
  return files;
}

function refuseOptions({ format, verify, load }: ConvertOptions): void {
  const refuse = (what: string, param: string, suggestion: string): UnsupportedError =>
    new UnsupportedError('unsupported_model', `${JSON.stringify(load.model)} is an .onnx file: ${what}.`, {
      param,
      suggestions: [suggestion],
    });
  if (format !== 'onnx') {
    throw refuse(`it is written as onnx, not as ${format}`, '--format', 'Add --format onnx.');
  }
  if (verify) {
    throw refuse(
      '--verify knows no inputs to compare outputs for',
      '--verify',
      'Compare both models on inputs of yours.',
    );
  }
  if (load.chooseQuantization !== undefined) {
    throw refuse(
      'schemes are not chosen by themselves',
      '--quantization',
      'Name a scheme, e.g. --quantization wint4:g128.',
    );
  }
}

function refuseNothing(model: string, skipped: ReadonlyMap<string, string>): UnsupportedError {
  const [why] = describeSkipped(skipped);
  return new UnsupportedError(
    'unsupported_model',
    `${JSON.stringify(model)} has no MatMul, Gemm or MoE with a constant matrix of floats.${why === undefined ? '' : ` ${why}`}`,
    { param: 'model', suggestions: ['Give the float model, before any quantization.'] },
  );
}

function describeSkipped(skipped: ReadonlyMap<string, string>): readonly string[] {
  if (skipped.size === 0) return [];
  const shown = [...skipped].slice(0, SHOWN).map(([name, why]) => `${name} (${why})`);
  return [
    `${skipped.size} products stay as they are: ${shown.join(', ')}${skipped.size > SHOWN ? ', ...' : ''}.`,
  ];
}

function sumBytes(initializers: Iterable<Initializer>): number {
  let bytes = 0;
  for (const { dataType, shape } of initializers) bytes += byteLengthOf(dataType, shape);
  return bytes;
}

async function writeNew(file: string, content: Uint8Array): Promise<void> {
  try {
    await writeFile(file, content, { flag: 'wx' });
  } catch (error) {
    throw writeFailure(file, error);
  }
}
