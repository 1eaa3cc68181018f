import { readdir, stat } from 'node:fs/promises';
import path from 'node:path';
import { BugError, UnsupportedError, UserError } from '../errors.js';
import { openCheckpoint, readCheckpoint, verifyUnchanged, type Checkpoint } from '../hub/checkpoint.js';
import { findModel, locateModel, type LocatedModel, type LocateOptions } from '../hub/locate.js';
import { openRemoteModel } from '../hub/remote-source.js';
import type { QuantizationFlags } from '../load/apply-quantization.js';
import type { DtypeChoice } from '../load/arithmetic.js';
import { isFdqFolder } from '../load/folder/open-folder.js';
import { planFdqFolder } from '../load/folder/plan-folder.js';
import { isGenaiFolder } from '../load/genai/genai-config.js';
import { planGenaiFolder } from '../load/genai/plan-genai.js';
import { planCheckpoint, type CheckpointPlan, type PlanOptions } from '../load/plan.js';
import { explainLayer, type LayerExplanation } from '../quant/explain.js';
import { resolveScheme } from '../quant/registry.js';
import type { IsaName } from '../runtime/addon.js';
import { chooseIsa, loadRuntime } from '../runtime/load-addon.js';
import { availableMemoryBytes } from '../runtime/machine.js';
import type { AutoLimits, AutoResult } from './auto.js';
import { chooseForCheckpoint, meterOf } from './choose-for-checkpoint.js';
import { describeCheckpoint, describeFolder } from './describe-checkpoint.js';
import { describeOnnx, openOnnx } from './describe-onnx.js';
import type { MemorySettings } from './forecast.js';
import { findSources } from './free-layers.js';
import type { ErrorSums } from '../load/weight-meter.js';
import { openReport } from './open-report.js';
import type { InspectReport } from './report.js';
import { findUnknownKeys } from './unknown-keys.js';

export interface InspectOptions {
  /** Folder, Hugging Face id, .onnx file, or a report saved as JSON. */
  readonly model: string;
  readonly locate?: LocateOptions;
  readonly quantization: QuantizationFlags;
  /** Present for `--quantization auto`. */
  readonly auto?: AutoLimits;
  readonly dtype: DtypeChoice;
  /** FDQ_ISA */
  readonly isa?: string | undefined;
  /** What the command line says about memory. */
  readonly memory: Omit<MemorySettings, 'availableBytes'>;
  /** Reads the weights and measures what quantizing loses. */
  readonly measure: boolean;
  /** Bytes of weights measured so far. */
  readonly onProgress?: (doneBytes: number, totalBytes: number) => void;
  readonly signal?: AbortSignal;
}

export interface Inspection {
  readonly report: InspectReport;
  /** Why a layer is what it is; for checkpoints. */
  readonly explain: ((layer: string) => readonly LayerExplanation[]) | undefined;
  readonly auto: AutoResult | undefined;
}

/**
 * Describes a model from its headers; weights are read only to be measured, one at a time. Of a checkpoint on the hub
 * that is not in the cache the headers alone are fetched, and nothing is kept, unless weights are to be read.
 * @throws UserError `model_not_found`, `invalid_checkpoint`, `unsupported_model` and what planning throws;
 *   `usage` for measuring what has no original weights
 */
export async function inspectModel(options: InspectOptions): Promise<Inspection> {
  const { model, measure, auto, locate = {} } = options;
  if (model.endsWith('.json')) return readOnly(options, await openReport(model));
  const { addon } = loadRuntime();
  const isa = chooseIsa(addon, options.isa);
  if (model.endsWith('.onnx')) return inspectOnnx(options, path.resolve(model), isa);
  if (!measure && auto === undefined) {
    const found = await findModel(model, locate);
    if (found.source !== 'hub') return inspectFolder(options, found, isa);
    const remote = await openRemoteModel(found.repo, found.settings, { ...locate, reference: model });
    if (remote.isCheckpoint) {
      return inspectCheckpoint(options, await readCheckpoint(remote.location, remote.source));
    }
  }
  return inspectFolder(options, await locateModel(model, locate), isa);
}

async function inspectFolder(
  options: InspectOptions,
  located: LocatedModel,
  isa: IsaName,
): Promise<Inspection> {
  const { quantization, dtype } = options;
  const request = { ...quantization, dtype };
  const describe = { isa, memory: measureMachine(options) };
  if (await isFdqFolder(located.dir)) {
    const plan = await planFdqFolder(located, request, isa);
    const { errors } = plan;
    const known = errors === undefined ? {} : { errors };
    return readOnly(options, describeFolder('fdq', plan, { ...describe, ...known }));
  }
  let refusal: string | undefined;
  if (await isGenaiFolder(located.dir)) {
    try {
      return readOnly(
        options,
        describeFolder('genai', await planGenaiFolder(located, request, isa), describe),
      );
    } catch (error) {
      if (!(error instanceof UnsupportedError)) throw error;
      refusal = `fdq serve would not run this model. ${error.message}`;
    }
  }
  const onnx = await findOnnxFile(located.dir, await readdir(located.dir));
  if (onnx === undefined) return inspectCheckpoint(options, await openCheckpoint(located));
  return inspectOnnx(options, onnx, isa, refusal);
}

async function inspectOnnx(
  options: InspectOptions,
  file: string,
  isa: IsaName,
  warning?: string,
): Promise<Inspection> {
  const report = describeOnnx(await openOnnx(file), { reference: options.model, path: file }, isa);
  const warnings = warning === undefined ? report.warnings : [...report.warnings, warning];
  return readOnly(options, { ...report, warnings });
}

async function inspectCheckpoint(options: InspectOptions, checkpoint: Checkpoint): Promise<Inspection> {
  const { addon } = loadRuntime();
  const isa = chooseIsa(addon, options.isa);
  const { auto: limits, quantization, dtype, onProgress, signal, memory } = options;
  let auto: AutoResult | undefined;
  const choose: PlanOptions['chooseQuantization'] = async (_, graph) => {
    const progress = onProgress === undefined ? {} : { onProgress };
    auto = await chooseForCheckpoint(checkpoint, graph, {
      ...limits,
      ...progress,
      flags: quantization,
      addon,
      threads: memory.threads,
      signal,
    });
    return auto.flags;
  };
  const request = { ...quantization, dtype, ...(limits === undefined ? {} : { chooseQuantization: choose }) };
  const plan = await planCheckpoint(checkpoint, request, isa);
  const errors = auto?.errors ?? (options.measure ? await measureLayers(plan, options) : undefined);
  const described = describeCheckpoint(plan, {
    isa,
    memory: measureMachine(options),
    ...(errors === undefined ? {} : { errors }),
  });
  const unknown = await findUnknownKeys(checkpoint.config);
  const warnings = [...described.warnings, ...(unknown.length === 0 ? [] : [describeUnknown(unknown)])];
  return { report: { ...described, warnings }, explain: (layer) => explainLayer(plan.plan, layer), auto };
}

/** Measures every layer the plan quantizes, each tensor once. */
async function measureLayers(
  plan: CheckpointPlan,
  { onProgress, signal, memory }: InspectOptions,
): Promise<ReadonlyMap<string, ErrorSums>> {
  const sources = findSources(plan.floatGraph);
  const quantized = plan.layers.filter(
    ({ scheme, tensor }) => scheme !== 'none' && sources.get(tensor)?.stored === undefined,
  );
  const layers = new Map(quantized.map((layer) => [layer.tensor, layer]));
  const totalBytes = [...layers.values()].reduce((sum, { bytesBefore }) => sum + bytesBefore, 0);
  const errors = new Map<string, ErrorSums>();
  const meter = meterOf(plan.checkpoint, loadRuntime().addon, memory.threads);
  try {
    let doneBytes = 0;
    for (const [tensor, { scheme, bytesBefore }] of layers) {
      signal?.throwIfAborted();
      const source = sources.get(tensor);
      if (source === undefined) throw new BugError(`${tensor} is no weight of the graph`);
      errors.set(tensor, await meter.measure(source, resolveScheme(scheme)));
      doneBytes += bytesBefore;
      onProgress?.(doneBytes, totalBytes);
    }
    await verifyUnchanged(plan.checkpoint);
    return errors;
  } finally {
    await meter.close();
  }
}

function measureMachine({ memory }: InspectOptions): MemorySettings {
  return { ...memory, availableBytes: availableMemoryBytes() };
}

/** What was described already, or has no weights to choose about. */
function readOnly({ measure, auto, model }: InspectOptions, report: InspectReport): Inspection {
  // A converted folder has the figures of its conversion.
  if ((measure && report.totals.error === null) || auto !== undefined) {
    throw new UserError(
      'usage',
      `Expected a checkpoint to ${auto === undefined ? 'measure' : 'choose schemes for'} but ${JSON.stringify(model)} (${report.model.kind}) has no original weights to compare with.`,
      { param: 'model', suggestions: ['Give the BF16, FP16 or FP32 checkpoint it was made from.'] },
    );
  }
  return { report, explain: undefined, auto: undefined };
}

/** The only .onnx file of a folder without safetensors. */
async function findOnnxFile(dir: string, names: readonly string[]): Promise<string | undefined> {
  if (names.some((name) => name.endsWith('.safetensors'))) return undefined;
  const models = names.filter((name) => name.endsWith('.onnx'));
  const [only, ...more] = models.includes('model.onnx') ? ['model.onnx'] : models;
  if (only === undefined) return undefined;
  if (more.length > 0) {
    throw new UserError(
      'model_not_found',
      `Expected one ONNX model in ${JSON.stringify(dir)} but it has ${models.join(', ')}.`,
      { param: 'model', suggestions: [`Name the file: ${path.join(dir, only)}`] },
    );
  }
  const file = path.join(dir, only);
  return (await stat(file)).isFile() ? file : undefined;
}

function describeUnknown(keys: readonly string[]): string {
  const shown = keys.slice(0, 8).join(', ');
  return `config.json has ${keys.length} keys fdq does not know: ${shown}${keys.length > 8 ? ', ...' : ''}. They have no effect here.`;
}
