import { describe, expect, it } from 'vitest';
import {
  blocksForWindows,
  countScored,
  cutWindows,
  packWindows,
  type TextWindow,
} from '../../../../src/bench/quality/windows.js';

const text = (length: number): number[] => Array.from({ length }, (_, i) => 100 + i);

/** What a model is told about each scored token: the window's tokens before it that are in the cache by then. */
function contextsOf(windows: readonly TextWindow[], limits: { tokens: number; rows: number }): string[] {
  const cache = new Map<number, number[]>();
  const contexts: string[] = [];
  for (const { batch, targets } of packWindows(windows, {
    maxBatchedTokens: limits.tokens,
    maxLogitRows: limits.rows,
  })) {
    expect(batch.tokenIds.length).toBeLessThanOrEqual(limits.tokens);
    expect(batch.logitIndices.length).toBeLessThanOrEqual(limits.rows);
    expect(batch.logitIndices.length).toBeGreaterThan(0);
    let row = 0;
    for (let s = 0; s < batch.contextLengths.length; s++) {
      const block = batch.blockTables[s * batch.blockTableStride] ?? -1;
      for (let at = batch.queryStarts[s]!; at < batch.queryStarts[s + 1]!; at++) {
        const position = batch.positions[at]!;
        const cached = cache.get(block) ?? [];
        cached[position] = batch.tokenIds[at]!;
        cache.set(block, cached);
        if (targets.length === 0 || batch.logitIndices[row] !== at) continue;
        contexts.push(`${cached.slice(0, position + 1).join(' ')} -> ${targets[row]}`);
        row++;
      }
      expect(batch.contextLengths[s]).toBe(batch.positions[batch.queryStarts[s + 1]! - 1]! + 1);
    }
    if (targets.length > 0) expect(row).toBe(targets.length);
  }
  return contexts;
}

describe('windows of a text', () => {
  it('do not overlap when the stride is the window, and drop what is left', () => {
    const windows = cutWindows(text(11), { window: 4, stride: 4 });
    expect(windows).toEqual([
      { ids: [100, 101, 102, 103], firstScored: 1 },
      { ids: [104, 105, 106, 107], firstScored: 1 },
    ]);
    expect(countScored(windows)).toBe(6);
  });

  it('score each token but the first once when they overlap', () => {
    const windows = cutWindows(text(11), { window: 5, stride: 2 });
    expect(windows.map(({ ids, firstScored }) => ids.slice(firstScored))).toEqual([
      [101, 102, 103, 104],
      [105, 106],
      [107, 108],
      [109, 110],
    ]);
  });

  it('end with maxWindows', () => {
    expect(cutWindows(text(100), { window: 4, stride: 4, maxWindows: 3 })).toHaveLength(3);
  });

  it('refuse a text shorter than one', () => {
    expect(() => cutWindows(text(3), { window: 4, stride: 4 })).toThrow(
      'one window of 4 tokens but it has 3',
    );
  });

  it('are scored given the same contexts whatever fits into a step', () => {
    for (const stride of [1, 3, 7, 20]) {
      const windows = cutWindows(text(70), { window: 20, stride });
      const expected = windows.flatMap(({ ids, firstScored }) =>
        ids.slice(firstScored).map((id, i) => `${ids.slice(0, firstScored + i).join(' ')} -> ${id}`),
      );
      for (const [tokens, rows] of [
        [200, 200],
        [45, 200],
        [45, 19],
        [45, 18],
        [20, 3],
        [7, 200],
        [3, 2],
        [1, 1],
      ] as const) {
        expect(
          contextsOf(windows, { tokens, rows }),
          `stride ${stride}, ${tokens} tokens, ${rows} rows`,
        ).toEqual(expected);
      }
    }
  });

  it('count how many of them are done', () => {
    const windows = cutWindows(text(50), { window: 10, stride: 10 });
    const done = (tokens: number): number[] =>
      [...packWindows(windows, { maxBatchedTokens: tokens, maxLogitRows: 100 })].map(
        (step) => step.windowsDone,
      );
    expect(done(25)).toEqual([2, 4, 5]);
    expect(done(5)).toEqual([0, 1, 1, 2, 2, 3, 3, 4, 4, 5]);
  });

  it('take whole KV blocks', () => {
    expect(blocksForWindows(256, 1024)).toBe(64);
    expect(blocksForWindows(20, 45)).toBe(4);
    expect(blocksForWindows(2048, 1024)).toBe(128);
  });
});
