import { UserError } from '../errors.js';
import { openCheckpoint } from '../hub/checkpoint.js';
import { warnAboutTokenizer } from '../hub/layout.js';
import { locateModel } from '../hub/locate.js';
import { listFolder } from '../hub/weight-files.js';
import { isFdqFolder } from '../load/folder/open-folder.js';
import { isGenaiFolder } from '../load/genai/genai-config.js';
import { SHARED_MODES, StagedFolder } from '../load/folder/staged-folder.js';
import type { LoadOptions } from '../load/load-model.js';
import { planCheckpoint, type PlanOptions } from '../load/plan.js';
import { requestOf } from '../load/apply-quantization.js';
import { loadArchitecture } from '../models/registry.js';
import { summarizeQuantization, type QuantizationSummary } from '../quant/report.js';
import { chooseIsa, loadRuntime } from '../runtime/load-addon.js';
import { convertGraph, isOnnxFile } from './convert-graph.js';
import { writerOf, type FormatName } from './formats.js';
import { copyModelFiles } from './model-files.js';
import { checkFreeSpace, checkTarget } from './target.js';
import type { FormatWriter } from './writer.js';

export type ConvertPhase = 'locate' | 'plan' | 'write' | 'verify';

/** Told how a conversion goes. */
export interface ConvertObserver {
  phase(
    name: ConvertPhase,
    state: 'start' | 'progress' | 'done',
    detail?: { readonly doneBytes?: number; readonly totalBytes?: number; readonly message?: string },
  ): void;
  warn(line: string): void;
}

export interface ConvertOptions {
  /** What `fdq serve` would load, and how. */
  readonly load: LoadOptions;
  readonly output: string;
  readonly format: FormatName;
  /** Replaces an earlier conversion at the output. */
  readonly force: boolean;
  /** Compares the result with the online path before it appears. */
  readonly verify: boolean;
  readonly signal: AbortSignal;
}

export interface ConvertReport {
  /** Absolute. */
  readonly output: string;
  readonly format: FormatName;
  readonly scheme: string;
  readonly weightBytes: number;
  readonly checkpointBytes: number;
  readonly summary: QuantizationSummary;
  /** What `--verify` found equal. */
  readonly verified?: string;
}

/**
 * Writes a model as what `fdq serve` would run, or in another format. The output folder appears whole or not at all.
 * @throws UserError `output_exists`, `write_failed`, `check_failed`, `aborted`, and what loading the model throws
 */
export async function convert(options: ConvertOptions, observer: ConvertObserver): Promise<ConvertReport> {
  const { load, signal } = options;
  if (await isOnnxFile(load.model)) return convertGraph(options, observer);
  const writer = writerOf(options.format);
  const offline = { ...load, offline: true } as const;
  requestOf(offline);
  // Before a model is downloaded and, with auto, measured; with its folder known, once more.
  await checkTarget(options.output, { force: options.force });
  observer.phase('locate', 'start');
  const located = await locateModel(load.model, {
    onProgress: ({ file, bytesDone, bytesTotal }) =>
      observer.phase('locate', 'progress', { doneBytes: bytesDone, totalBytes: bytesTotal, message: file }),
    isCheckpoint: true,
    checkConfig: async (config) => {
      (await loadArchitecture(config)).parseConfig(config);
    },
    ...load.locate,
    signal,
  });
  observer.phase('locate', 'done');
  if (await isGenaiFolder(located.dir)) return convertGraph(options, observer, located.dir);
  observer.phase('plan', 'start');
  if (await isFdqFolder(located.dir)) throw isConverted(load.model);
  const target = await checkTarget(options.output, { force: options.force, source: located.dir });
  const runtime = loadRuntime();
  const isa = chooseIsa(runtime.addon, load.isa);
  const plan = await planCheckpoint(await openCheckpoint(located), chooseFor(writer, offline), isa);
  writer.check(plan);
  const missing = warnAboutTokenizer(await listFolder(located.dir), load.model);
  for (const warning of [...plan.warnings, ...(writer.warnings?.(plan) ?? []), ...missing])
    observer.warn(warning);
  await checkFreeSpace(target, writer.estimateBytes(plan));
  observer.phase('plan', 'done');

  const staged = await StagedFolder.create(target, SHARED_MODES);
  try {
    observer.phase('write', 'start');
    const job = { plan, runtime, threads: load.threads, dir: staged.dir, signal };
    const { weightBytes } = await writer.write({
      ...job,
      onProgress: (doneBytes, totalBytes) => observer.phase('write', 'progress', { doneBytes, totalBytes }),
    });
    await copyModelFiles(located.dir, staged.dir);
    observer.phase('write', 'done');
    const verified = await verify(options, observer, { ...job, load: offline });
    signal.throwIfAborted();
    if (!(await staged.publish({ replace: options.force }))) throw appeared(target);
    const { checkpoint, scheme } = plan;
    return {
      output: target,
      format: options.format,
      scheme,
      weightBytes,
      checkpointBytes: checkpoint.totalBytes,
      summary: summarizeQuantization(plan.layers),
      ...(verified === undefined ? {} : { verified }),
    };
  } finally {
    await staged.discard();
  }
}

/** `--quantization auto` among what the format holds. */
function chooseFor(writer: FormatWriter, options: PlanOptions): PlanOptions {
  const { chooseQuantization: choose } = options;
  if (choose === undefined) return options;
  return {
    ...options,
    chooseQuantization: (weights, graph) => choose(weights, graph, writer.destination?.(graph)),
  };
}

async function verify(
  { format, verify: isWanted }: ConvertOptions,
  observer: ConvertObserver,
  job: Parameters<ReturnType<typeof writerOf>['verify']>[0],
): Promise<string | undefined> {
  if (!isWanted) return undefined;
  observer.phase('verify', 'start');
  const message = await writerOf(format).verify(job);
  observer.phase('verify', 'done', { message });
  return message;
}

function isConverted(model: string): UserError {
  return new UserError('already_quantized', `${JSON.stringify(model)} is the output of fdq convert.`, {
    param: 'model',
    suggestions: ['Give the checkpoint it was made from; fdq.json in the folder names it ("source").'],
  });
}

function appeared(target: string): UserError {
  return new UserError('output_exists', `${JSON.stringify(target)} appeared while fdq was writing it.`, {
    param: 'output',
    suggestions: ['Choose another folder, or replace it: --force.'],
  });
}
