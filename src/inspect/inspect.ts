import { readdir, stat } from 'node:fs/promises';
import path from 'node:path';
import { counted } from '../counted.js';
import { UnsupportedError, UserError } from '../errors.js';
import { openCheckpoint, readCheckpoint, type Checkpoint } from '../hub/checkpoint.js';
import { warnAboutTokenizer } from '../hub/layout.js';
import { findModel, locateModel, type LocatedModel, type LocateOptions } from '../hub/locate.js';
import { openRemoteModel } from '../hub/remote-source.js';
import { listFolder } from '../hub/weight-files.js';
import { findModelLayers } from '../convert/graph-input/open-model.js';
import type { QuantizationFlags } from '../load/apply-quantization.js';
import type { DtypeChoice } from '../load/arithmetic.js';
import { isFdqFolder } from '../load/folder/open-folder.js';
import { planFdqFolder } from '../load/folder/plan-folder.js';
import { isGenaiFolder } from '../load/genai/genai-config.js';
import { planGenaiFolder } from '../load/genai/plan-genai.js';
import { planCheckpoint, type CheckpointPlan, type PlanOptions } from '../load/plan.js';
import type { ErrorSums } from '../load/weight-meter.js';
import { explainLayer, type LayerExplanation } from '../quant/explain.js';
import type { IsaName } from '../runtime/addon.js';
import { chooseIsa, loadRuntime } from '../runtime/load-addon.js';
import { availableMemoryBytes } from '../runtime/machine.js';
import type { AutoLimits, AutoResult } from './auto.js';
import { chooseForWeights } from './choose-for-weights.js';
import { describeCheckpoint, describeFolder } from './describe-checkpoint.js';
import { describeOnnx, openOnnx } from './describe-onnx.js';
import type { MemorySettings } from './forecast.js';
import { findSources } from './free-layers.js';
import { measureLayers } from './measure-layers.js';
import { openReport } from './open-report.js';
import { INLINE_FILE, planOnnx } from './plan-onnx.js';
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
      const inspection = await inspectCheckpoint(
        options,
        await readCheckpoint(remote.location, remote.source),
      );
      return withWarnings(inspection, warnAboutTokenizer(remote.source.names, model));
    }
  }
  return inspectFolder(options, await locateModel(model, locate), isa);
}

async function inspectFolder(
  options: InspectOptions,
  located: LocatedModel,
  isa: IsaName,
): Promise<Inspection> {
  const inspection = await inspectLayout(options, located, isa);
  // Any other ONNX model may have nothing to do with text.
  if (inspection.report.model.kind === 'onnx') return inspection;
  return withWarnings(inspection, warnAboutTokenizer(await listFolder(located.dir), options.model));
}

function withWarnings(inspection: Inspection, warnings: readonly string[]): Inspection {
  const { report } = inspection;
  return { ...inspection, report: { ...report, warnings: [...report.warnings, ...warnings] } };
}

async function inspectLayout(
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
      return await inspectGenai(options, located, isa);
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
  const graph = await openOnnx(file);
  const model = { reference: options.model, path: file };
  const more = warning === undefined ? [] : [warning];
  if (!isPlanned(options)) {
    return withWarnings(readOnly(options, describeOnnx(graph, model, isa)), more);
  }
  const planned = await planOnnx(findModelLayers(options.model, graph, INLINE_FILE), options);
  const report = describeOnnx(graph, model, isa, planned);
  const explain = (layer: string): readonly LayerExplanation[] => explainLayer(planned.plan, layer);
  return withWarnings({ report, explain, auto: planned.auto }, more);
}

/** Whether anything is asked about the layers of an ONNX model but what they are. */
function isPlanned({ measure, auto, quantization }: InspectOptions): boolean {
  const { kvCacheDtype: _, ...flags } = quantization;
  return measure || auto !== undefined || Object.keys(flags).length > 0;
}

async function inspectGenai(
  options: InspectOptions,
  located: LocatedModel,
  isa: IsaName,
): Promise<Inspection> {
  const chooser = createChooser(options);
  const { quantization, dtype } = options;
  const plan = await planGenaiFolder(located, { ...quantization, dtype, ...chooser.request }, isa);
  const sources = findSources(plan.floatGraph);
  const floats = plan.layers.filter(({ tensor }) => sources.has(tensor));
  const describe = { isa, memory: measureMachine(options) };
  // Beside layers that are stored quantized no other can be.
  if (floats.length < plan.layers.length) return readOnly(options, describeFolder('genai', plan, describe));
  const errors = chooser.chosen()?.errors ?? (await measurePlan({ ...plan, layers: floats }, options));
  const report = describeFolder('genai', plan, { ...describe, ...(errors && { errors }) });
  return { report, explain: (layer) => explainLayer(plan.plan, layer), auto: chooser.chosen() };
}

async function inspectCheckpoint(options: InspectOptions, checkpoint: Checkpoint): Promise<Inspection> {
  const isa = chooseIsa(loadRuntime().addon, options.isa);
  const chooser = createChooser(options);
  const { quantization, dtype } = options;
  const plan = await planCheckpoint(checkpoint, { ...quantization, dtype, ...chooser.request }, isa);
  const errors = chooser.chosen()?.errors ?? (await measurePlan(plan, options));
  const described = describeCheckpoint(plan, {
    isa,
    memory: measureMachine(options),
    ...(errors && { errors }),
  });
  const unknown = await findUnknownKeys(checkpoint.config);
  const warnings = [...described.warnings, ...(unknown.length === 0 ? [] : [describeUnknown(unknown)])];
  const explain = (layer: string): readonly LayerExplanation[] => explainLayer(plan.plan, layer);
  return { report: { ...described, warnings }, explain, auto: chooser.chosen() };
}

/** `--quantization auto` as a part of what is planned; `chosen` says afterwards what it chose. */
function createChooser({ auto: limits, quantization, memory, onProgress, signal }: InspectOptions): {
  readonly request: Pick<PlanOptions, 'chooseQuantization'>;
  readonly chosen: () => AutoResult | undefined;
} {
  if (limits === undefined) return { request: {}, chosen: () => undefined };
  let auto: AutoResult | undefined;
  const chooseQuantization: PlanOptions['chooseQuantization'] = async (weights, graph) => {
    auto = await chooseForWeights(weights, graph, {
      ...limits,
      ...(onProgress === undefined ? {} : { onProgress }),
      flags: quantization,
      addon: loadRuntime().addon,
      threads: memory.threads,
      signal,
    });
    return auto.flags;
  };
  return { request: { chooseQuantization }, chosen: () => auto };
}

async function measurePlan(
  { checkpoint, floatGraph, layers }: Pick<CheckpointPlan, 'checkpoint' | 'floatGraph' | 'layers'>,
  options: InspectOptions,
): Promise<ReadonlyMap<string, ErrorSums> | undefined> {
  if (!options.measure) return undefined;
  return measureLayers({ layers, floatGraph, weights: checkpoint }, options);
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
  const effect = keys.length === 1 ? 'It has' : 'They have';
  return `config.json has ${counted(keys.length, 'key')} fdq does not know: ${shown}${keys.length > 8 ? ', ...' : ''}. ${effect} no effect here.`;
}
