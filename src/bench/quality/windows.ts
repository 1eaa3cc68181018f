import { UserError } from '../../errors.js';
import { KV_BLOCK_SIZE } from '../../runtime/kv-layout.js';
import type { StepBatch } from '../../runtime/model-runner.js';

/** How a text is cut. */
export interface WindowOptions {
  /** Tokens of a window. */
  readonly window: number;
  /** Tokens from the beginning of one window to that of the next, 1 .. window. */
  readonly stride: number;
  /** Windows that are scored, from the beginning of the text; absent: all. */
  readonly maxWindows?: number;
}

/** Part of a text that is scored from an empty context. */
export interface TextWindow {
  readonly ids: readonly number[];
  /** Tokens from here on are scored, each given those before it in the window; at least 1. */
  readonly firstScored: number;
}

/**
 * Windows of equal length; what is left at the end is dropped. The first window scores all its tokens but the first,
 * which nothing precedes. With a stride below the window, the others score only what the window before them has not;
 * else windows do not overlap and each scores all but its first token.
 * @throws UserError `usage` when the text is shorter than one window
 */
export function cutWindows(ids: readonly number[], options: WindowOptions): readonly TextWindow[] {
  const { window, stride, maxWindows = Infinity } = options;
  if (ids.length < window) {
    throw new UserError(
      'usage',
      `Expected a text of at least one window of ${window} tokens but it has ${ids.length}.`,
      { param: '--window', suggestions: ['Give a longer --text, or a smaller --window.'] },
    );
  }
  const count = Math.min(maxWindows, Math.floor((ids.length - window) / stride) + 1);
  return Array.from({ length: count }, (_, i) => ({
    ids: ids.slice(i * stride, i * stride + window),
    firstScored: i === 0 || stride === window ? 1 : window - stride,
  }));
}

export function countScored(windows: readonly TextWindow[]): number {
  return windows.reduce((sum, { ids, firstScored }) => sum + ids.length - firstScored, 0);
}

export interface StepLimits {
  readonly maxBatchedTokens: number;
  readonly maxLogitRows: number;
}

/** One step of a model over parts of windows. */
export interface ScoringStep {
  readonly batch: Omit<StepBatch, 'sampling'>;
  /** Token that follows each logits row; empty where the step only fills the cache and its one row means nothing. */
  readonly targets: Int32Array;
  /** Windows that are done after the step. */
  readonly windowsDone: number;
}

/** KV blocks that steps of at most so many tokens use. */
export function blocksForWindows(window: number, maxBatchedTokens: number): number {
  return Math.ceil(window / KV_BLOCK_SIZE) * Math.max(1, Math.floor(maxBatchedTokens / window));
}

/**
 * Packs windows into steps: several whole ones where they fit, else a window over several steps. Rows come in the
 * order of the text whatever the limits are.
 */
export function* packWindows(windows: readonly TextWindow[], limits: StepLimits): Generator<ScoringStep> {
  const length = windows[0]?.ids.length ?? 0;
  const together = Math.min(
    Math.floor(limits.maxBatchedTokens / length),
    Math.floor(limits.maxLogitRows / Math.max(1, length - 1)),
  );
  if (together >= 1) {
    for (let first = 0; first < windows.length; first += together) {
      const some = windows.slice(first, first + together);
      yield packParts(
        some.map((window) => ({ window, start: 0, end: length - 1 })),
        first + some.length,
      );
    }
    return;
  }
  for (const [index, window] of windows.entries()) {
    // The last token predicts nothing that is scored.
    for (let start = 0; start < length - 1;) {
      const unscored = Math.max(0, window.firstScored - 1 - start);
      const end = Math.min(
        length - 1,
        start + limits.maxBatchedTokens,
        start + unscored + limits.maxLogitRows,
      );
      yield packParts([{ window, start, end }], end === length - 1 ? index + 1 : index);
      start = end;
    }
  }
}

/** Tokens start .. end - 1 of a window, on top of those before them in the cache. */
interface Part {
  readonly window: TextWindow;
  readonly start: number;
  readonly end: number;
}

function packParts(parts: readonly Part[], windowsDone: number): ScoringStep {
  const stride = Math.ceil((parts[0]?.window.ids.length ?? 1) / KV_BLOCK_SIZE);
  const tokenIds: number[] = [];
  const positions: number[] = [];
  const queryStarts = [0];
  const rows: number[] = [];
  const targets: number[] = [];
  for (const { window, start, end } of parts) {
    for (let at = start; at < end; at++) {
      if (at + 1 >= window.firstScored) {
        rows.push(tokenIds.length);
        targets.push(window.ids[at + 1] ?? 0);
      }
      tokenIds.push(window.ids[at] ?? 0);
      positions.push(at);
    }
    queryStarts.push(tokenIds.length);
  }
  return {
    batch: {
      tokenIds: Int32Array.from(tokenIds),
      positions: Int32Array.from(positions),
      queryStarts: Int32Array.from(queryStarts),
      contextLengths: Int32Array.from(parts, ({ end }) => end),
      blockTables: Int32Array.from({ length: parts.length * stride }, (_, i) => i),
      blockTableStride: stride,
      // A step has at least one row.
      logitIndices: Int32Array.from(rows.length > 0 ? rows : [tokenIds.length - 1]),
    },
    targets: Int32Array.from(targets),
    windowsDone,
  };
}
