import { rm, stat } from 'node:fs/promises';
import path from 'node:path';
import { UnsupportedError, UserError } from '../errors.js';
import { listInitializers } from '../graph/scopes.js';
import { listFolder, resolveModelFile } from '../hub/weight-files.js';
import { requestOf, type QuantizedModel } from '../load/apply-quantization.js';
import { SHARED_MODES, StagedFolder } from '../load/folder/staged-folder.js';
import { layOutTensors } from '../load/folder/weights-file.js';
import { GENAI_FILE, warnAboutTokenizer } from '../hub/layout.js';
import { isGenaiFolder, readGenaiConfig } from '../load/genai/genai-config.js';
import { resolveScheme } from '../quant/registry.js';
import { summarizeQuantization } from '../quant/report.js';
import type { ConvertObserver, ConvertOptions, ConvertReport } from './convert.js';
import { createGraphDestination, sumBytes } from './graph-input/destination.js';
import { describeSkipped, openModel } from './graph-input/open-model.js';
import { quantizeView } from './graph-input/quantize-view.js';
import { rewriteModel } from './graph-input/rewrite-model.js';
import { compareModel, probeModel } from './graph-input/verify-model.js';
import { identifyFiles, writeModel, writeNew, type GraphJob } from './graph-input/write-model.js';
import { copyModelFiles } from './model-files.js';
import { checkFreeSpace, checkTarget } from './target.js';

const MODEL_FILE = 'model.onnx';
/** Weights from inside of the model file, while they are quantized. */
const INLINE_FILE = 'inline-weights';
const GRAPH_BYTES = 16 << 20;

/** A model in an .onnx file. */
interface GraphInput {
  readonly file: string;
  /** Of the written file. */
  readonly name: string;
  /** Files to copy, beside those every model has. */
  readonly extra: readonly string[];
}

/**
 * Quantizes the MatMul, Gemm and MoE nodes of any float ONNX model that have constant matrices, in its graph and in the
 * bodies of If, Loop and Scan, and writes it with operators of ONNX Runtime in their place; inputs, outputs and all
 * other nodes stay. External data is never read whole. `--verify` takes the memory of the float model.
 * @param folder of onnxruntime-genai, whose genai_config.json names the model; absent: the model is an .onnx file
 * @throws UserError as `convert`; UnsupportedError `unsupported_model` naming what is not handled
 */
export async function convertGraph(
  options: ConvertOptions,
  observer: ConvertObserver,
  folder?: string,
): Promise<ConvertReport> {
  const { load, signal } = options;
  refuseOptions(options);
  requestOf({ ...load, offline: true }); // wrong flags are refused before anything is read
  observer.phase('plan', 'start');
  const input = await findInput(load.model, folder);
  const target = await checkTarget(options.output, {
    force: options.force,
    source: path.dirname(input.file),
  });
  if (folder !== undefined)
    for (const warning of warnAboutTokenizer(await listFolder(folder), load.model)) observer.warn(warning);
  const staged = await StagedFolder.create(target, SHARED_MODES);
  try {
    const { job, layers, scheme } = await planGraph(input, options, { observer, dir: staged.dir, target });
    const probe = options.verify ? await probeModel(job.source, input.file, load.threads) : undefined;
    signal.throwIfAborted();
    observer.phase('plan', 'done');
    observer.phase('write', 'start');
    await writeNew(job.inlineFile, job.inline);
    await writeModel(job);
    await rm(job.inlineFile);
    await copyModelFiles(folder ?? path.dirname(input.file), staged.dir, input.extra);
    observer.phase('write', 'done');
    if (probe !== undefined) observer.phase('verify', 'start');
    const verified =
      probe === undefined
        ? undefined
        : await compareModel(probe, path.join(staged.dir, input.name), {
            threads: load.threads,
            bits: layers.some(({ scheme }) => resolveScheme(scheme).native?.format === 'int4') ? 4 : 8,
          });
    if (verified !== undefined) observer.phase('verify', 'done', { message: verified });
    signal.throwIfAborted();
    if (!(await staged.publish({ replace: options.force }))) throw appeared(target);
    return {
      output: target,
      format: options.format,
      scheme,
      weightBytes: sumBytes(listInitializers(job.rewritten.graph)),
      checkpointBytes: sumBytes(listInitializers(job.source)),
      summary: summarizeQuantization(layers),
      ...(verified === undefined ? {} : { verified }),
    };
  } finally {
    await staged.discard();
  }
}

async function findInput(model: string, folder: string | undefined): Promise<GraphInput> {
  const extra = [GENAI_FILE];
  if (folder !== undefined) {
    const { filename } = await readGenaiConfig(folder);
    await resolveModelFile(folder, filename);
    // Not where a link in the Hugging Face cache leads: the external data lies beside the link.
    return { file: path.join(folder, filename), name: filename, extra };
  }
  const file = path.resolve(model);
  const dir = path.dirname(file);
  const isNamed = (await isGenaiFolder(dir)) && (await readGenaiConfig(dir)).filename === path.basename(file);
  return isNamed ? { file, name: path.basename(file), extra } : { file, name: MODEL_FILE, extra: [] };
}

async function planGraph(
  { file, name }: GraphInput,
  { load, signal }: ConvertOptions,
  place: { readonly observer: ConvertObserver; readonly dir: string; readonly target: string },
): Promise<{
  readonly job: GraphJob & { readonly inline: Uint8Array };
  readonly layers: QuantizedModel['layers'];
  readonly scheme: string;
}> {
  const { observer, dir, target } = place;
  const inlineFile = path.join(dir, INLINE_FILE);
  const { source, view, inline } = await openModel(load.model, file, inlineFile);
  const chosen = await load.chooseQuantization?.(
    { files: await identifyFiles(source), inline: { file: inlineFile, bytes: inline } },
    view.graph,
    createGraphDestination(source, view),
  );
  const flags = { ...load, ...chosen, offline: true } as const;
  const quantized = quantizeView(load.model, { source, view: view.graph }, flags);
  const { layers, scheme, plan } = quantized;
  for (const warning of [...plan.warnings, ...describeSkipped(view.skipped)]) observer.warn(warning);
  const rewritten = rewriteModel(source, view, quantized.graph);
  const layout = layOutTensors([...rewritten.tensors.map((tensor) => tensor.target), ...rewritten.kept]);
  await checkFreeSpace(target, layout.bytes + GRAPH_BYTES);
  const onProgress = (doneBytes: number, totalBytes: number): void =>
    observer.phase('write', 'progress', { doneBytes, totalBytes });
  const { threads } = load;
  const job = {
    source,
    quantized: quantized.graph,
    rewritten,
    inlineFile,
    inline,
    dir,
    name,
    threads,
    signal,
    onProgress,
  };
  return { job, layers, scheme };
}

/** Whether the model is one .onnx file, whatever it computes. */
export async function isOnnxFile(model: string): Promise<boolean> {
  if (!model.endsWith('.onnx')) return false;
  return stat(model).then(
    (found) => found.isFile(),
    () => false,
  );
}

function refuseOptions({ format, load }: ConvertOptions): void {
  if (format === 'onnx') return;
  throw new UnsupportedError(
    'unsupported_model',
    `${JSON.stringify(load.model)} is an ONNX model: it is written as onnx, not as ${format}.`,
    { param: '--format', suggestions: ['Add --format onnx.'] },
  );
}

function appeared(target: string): UserError {
  return new UserError('output_exists', `${JSON.stringify(target)} appeared while fdq was writing it.`, {
    param: 'output',
    suggestions: ['Choose another folder, or replace it: --force.'],
  });
}
