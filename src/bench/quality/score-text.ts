import type { LoadedModel } from '../../load/load-model.js';
import type { NativeAddon } from '../../runtime/addon.js';
import type { ReferenceReader, ReferenceWriter } from './reference-file.js';
import type { Tally } from './tally.js';
import { packWindows, type ScoringStep, type StepLimits, type TextWindow } from './windows.js';

/** Gives the rows that a step's logits are held against. */
export interface ReferenceSource {
  readonly limits?: StepLimits;
  /** [targets, vocab]; valid until the next call */
  rows(step: ScoringStep): Promise<Float32Array | Uint16Array>;
}

/** A model that computes beside the others. */
export function referenceFromModel({ runner }: Pick<LoadedModel, 'runner'>): ReferenceSource {
  return { limits: runner, rows: ({ batch }) => runner.logits(batch) };
}

/** Logits of an earlier pass. Steps must come in order. */
export function referenceFromFile(reader: ReferenceReader, maxRows: number, vocab: number): ReferenceSource {
  const buffer = new Uint16Array(maxRows * vocab);
  let next = 0;
  return {
    rows: async ({ targets }) => {
      const part = await reader.read(next, targets.length, buffer);
      next += targets.length;
      return part;
    },
  };
}

export interface ScoreOptions {
  readonly windows: readonly TextWindow[];
  readonly addon: NativeAddon;
  readonly threads: number;
  readonly onProgress: (windowsDone: number) => void;
  readonly signal: AbortSignal;
}

/** A model and what its rows add up to. */
export interface ScoredModel {
  readonly runner: LoadedModel['runner'];
  readonly tally: Tally;
}

/**
 * Runs all models over the same windows in one pass. A step's logits are scored before the next step replaces them:
 * memory holds one step of each model, whatever the length of text and windows.
 * @returns windows that were scored: fewer than given when `signal` ended the pass
 */
export async function scoreText(
  models: readonly ScoredModel[],
  reference: ReferenceSource | null,
  { windows, addon, threads, onProgress, signal }: ScoreOptions,
): Promise<number> {
  let done = 0;
  const limits = [...models.map(({ runner }) => runner), ...(reference?.limits ? [reference.limits] : [])];
  for (const step of packWindows(windows, smallestOf(limits))) {
    if (signal.aborted) break;
    const exact = await reference?.rows(step);
    for (const { runner, tally } of models) {
      const logits = await runner.logits(step.batch);
      const rows = step.targets.length;
      if (rows === 0) continue;
      tally.add(
        await addon.scoreLogits({
          rows,
          vocab: runner.vocabSize,
          logits,
          targets: step.targets,
          threads,
          ...(exact === undefined ? {} : { reference: exact }),
        }),
      );
    }
    done = step.windowsDone;
    onProgress(done);
  }
  return done;
}

/** Runs the reference alone and keeps its logits. */
export async function keepReference(
  { runner }: Pick<LoadedModel, 'runner'>,
  writer: ReferenceWriter,
  { windows, addon, threads, onProgress, signal }: ScoreOptions,
): Promise<void> {
  const vocab = runner.vocabSize;
  const buffer = new Uint16Array(runner.maxLogitRows * vocab);
  for (const step of packWindows(windows, runner)) {
    signal.throwIfAborted();
    const logits = await runner.logits(step.batch);
    const rows = step.targets.length;
    if (rows > 0) {
      const target = buffer.subarray(0, rows * vocab);
      await addon.compressLogits({ rows, vocab, logits, threads, target });
      await writer.append(target);
    }
    onProgress(step.windowsDone);
  }
}

function smallestOf(limits: readonly StepLimits[]): StepLimits {
  return {
    maxBatchedTokens: Math.min(...limits.map(({ maxBatchedTokens }) => maxBatchedTokens)),
    maxLogitRows: Math.min(...limits.map(({ maxLogitRows }) => maxLogitRows)),
  };
}
