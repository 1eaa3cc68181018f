import { describe, expect, it } from 'vitest';
import { OutputQueue } from '../../../src/engine/output-queue.js';
import { SamplingColumns } from '../../../src/engine/sampler.js';
import { choiceSeed, RequestState, Sequence } from '../../../src/engine/sequence.js';
import type { SamplingParams } from '../../../src/engine/types.js';
import type { RaggedIds } from '../../../src/runtime/addon.js';
import { request } from './harness.js';

function sequence(
  changes: Partial<SamplingParams>,
  output: readonly number[] = [],
  promptIds = [7, 8],
): Sequence {
  const state = new RequestState(request(promptIds, changes), new OutputQueue(() => undefined), 0, 100);
  const made = new Sequence(state, 0, 0, 5n);
  for (const id of output) made.append(id);
  return made;
}

function lists({ starts, ids }: RaggedIds): number[][] {
  return [...starts.subarray(1)].map((end, row) => [...ids.subarray(starts[row], end)]);
}

const EOS_IDS = new Set([0, 1]);

describe('SamplingColumns', () => {
  it('writes the parameters of each row', () => {
    const columns = new SamplingColumns(100, 4, EOS_IDS);
    columns.addDraw(sequence({ temperature: 0.5, topK: 3, topP: 0.25, minP: 0.125, logprobs: 4 }, [9, 9, 9]));
    columns.addScore(42, 2);
    columns.addDraw(
      sequence({ repetitionPenalty: 1.5, presencePenalty: -0.5, frequencyPenalty: 2, logprobs: 999 }),
    );
    const batch = columns.batch();
    expect({ rows: batch.rows, vocab: batch.vocab }).toEqual({ rows: 3, vocab: 100 });
    expect([...batch.temperature]).toEqual([0.5, 0, 0]);
    expect([...batch.topK]).toEqual([3, 0, 0]);
    expect([...batch.topP]).toEqual([0.25, 1, 1]);
    expect([...batch.minP]).toEqual([0.125, 0, 0]);
    expect([...batch.repetitionPenalty]).toEqual([1, 1, 1.5]);
    expect([...batch.presencePenalty]).toEqual([0, 0, -0.5]);
    expect([...batch.frequencyPenalty]).toEqual([0, 0, 2]);
    expect([...batch.seed]).toEqual([5n, 0n, 5n]);
    expect([...batch.counter]).toEqual([3n, 0n, 0n]);
    expect([...batch.target]).toEqual([-1, 42, -1]);
    expect([...batch.numTop]).toEqual([4, 2, 100]);
  });

  it('hands over the ids that a penalty looks at, and no others', () => {
    const columns = new SamplingColumns(100, 4, EOS_IDS);
    columns.addDraw(sequence({}, [3, 4]));
    columns.addDraw(sequence({ repetitionPenalty: 1.2 }, [3, 4]));
    columns.addDraw(sequence({ presencePenalty: 0.1 }, [5]));
    columns.addDraw(sequence({ frequencyPenalty: 0.1 }, [6, 6]));
    const { promptIds, outputIds } = columns.batch();
    expect(lists(promptIds)).toEqual([[], [7, 8], [], []]);
    expect(lists(outputIds)).toEqual([[], [3, 4], [5], [6, 6]]);
  });

  it('pairs biases with their ids', () => {
    const columns = new SamplingColumns(100, 4, EOS_IDS);
    columns.addDraw(sequence({ logitBias: new Map([[4, 1.5]]) }));
    columns.addScore(1, 0);
    columns.addDraw(
      sequence({
        logitBias: new Map([
          [9, -100],
          [2, 0.5],
        ]),
      }),
    );
    const { biasIds, biasValues } = columns.batch();
    expect(lists(biasIds)).toEqual([[4], [], [9, 2]]);
    expect([...biasValues]).toEqual([1.5, -100, 0.5]);
  });

  it('bans what would end the choice before minTokens', () => {
    const banned = (changes: Partial<SamplingParams>, output: number[]): number[] => {
      const columns = new SamplingColumns(100, 1, EOS_IDS);
      columns.addDraw(sequence(changes, output));
      return lists(columns.batch().bannedIds)[0]!;
    };
    const changes = { minTokens: 2, stopTokenIds: [30], ignoreEos: false };
    expect(banned(changes, [5])).toEqual([0, 1, 30]);
    expect(banned(changes, [5, 6])).toEqual([]);
    expect(banned({ ...changes, ignoreEos: true }, [5])).toEqual([30]);
  });

  it('bans the end of a bad word whose beginning was just generated', () => {
    const banned = (output: number[], promptIds?: number[]): number[] => {
      const columns = new SamplingColumns(100, 1, EOS_IDS);
      columns.addDraw(sequence({ badWords: [[20], [21, 22], [21, 23, 24]] }, output, promptIds));
      return lists(columns.batch().bannedIds)[0]!;
    };
    expect(banned([])).toEqual([20]);
    expect(banned([21])).toEqual([20, 22]);
    expect(banned([21, 23])).toEqual([20, 24]);
    expect(banned([21, 5])).toEqual([20]);
    expect(banned([], [21])).toEqual([20]);
  });

  it('restricts to allowed ids', () => {
    const columns = new SamplingColumns(100, 2, EOS_IDS);
    columns.addDraw(sequence({ allowedTokenIds: [3, 5] }));
    columns.addDraw(sequence({}));
    expect(lists(columns.batch().allowedIds)).toEqual([[3, 5], []]);
  });

  it('starts afresh after clear, with no copies of the arrays', () => {
    const columns = new SamplingColumns(100, 2, EOS_IDS);
    columns.addDraw(sequence({ badWords: [[20]], allowedTokenIds: [3], logitBias: new Map([[1, 2]]) }));
    const { buffer } = columns.batch().temperature;
    columns.clear();
    columns.addDraw(sequence({ temperature: 2 }));
    const batch = columns.batch();
    expect(batch.temperature.buffer).toBe(buffer);
    expect([...batch.temperature]).toEqual([2]);
    expect([batch.bannedIds, batch.allowedIds, batch.biasIds].map(lists)).toEqual([[[]], [[]], [[]]]);
    expect(batch.biasValues).toHaveLength(0);
  });
});

describe('choiceSeed', () => {
  it('keeps the first and spreads the others over 64 bits', () => {
    expect(choiceSeed(42n, 0)).toBe(42n);
    expect(choiceSeed(-1n, 0)).toBe(2n ** 64n - 1n);
    const seeds = Array.from({ length: 1000 }, (_, i) => choiceSeed(42n, i));
    expect(new Set(seeds).size).toBe(1000);
    expect(seeds.every((seed) => seed >= 0n && seed < 2n ** 64n)).toBe(true);
    // SplitMix64 seeded with 0: its published first output.
    expect(choiceSeed(0n, 1)).toBe(0xe220a8397b1dcdafn);
  });
});
