import { describe, expect, it } from 'vitest';
import type { ScoreJob } from '../../src/runtime/addon.js';
import { openAddon } from '../helpers/addon.js';

const { addon } = openAddon();
const VOCAB = 37;
const ROWS = 5;

const makeLogits = (seed: number): Float32Array =>
  Float32Array.from({ length: ROWS * VOCAB }, (_, i) => 3 * Math.sin(i * 12.9898 + seed));

const plain = {
  rows: ROWS,
  vocab: VOCAB,
  logits: makeLogits(1),
  targets: Int32Array.of(0, 5, 36, 1, 2),
  threads: 2,
} as const;

/** Natural logarithms of a row's probabilities. */
function logProbabilities(logits: Float32Array, row: number): readonly number[] {
  const values = [...logits.subarray(row * VOCAB, (row + 1) * VOCAB)];
  const norm = Math.log(values.reduce((sum, value) => sum + Math.exp(value), 0));
  return values.map((value) => value - norm);
}

describe('scores of logits', () => {
  it.each([
    ['as they are', (logits: Float32Array) => Promise.resolve(logits)],
    [
      'in 16 bits',
      async (logits: Float32Array) => {
        const target = new Uint16Array(logits.length);
        await addon.compressLogits({ rows: ROWS, vocab: VOCAB, logits, threads: 1, target });
        return target;
      },
    ],
  ])('are those of plain sums, with reference logits %s', async (_, toReference) => {
    const exact = makeLogits(1.1);
    const { nll, divergence, agrees } = await addon.scoreLogits({
      ...plain,
      reference: await toReference(exact),
    });
    for (let row = 0; row < ROWS; row++) {
      const p = logProbabilities(exact, row);
      const q = logProbabilities(plain.logits, row);
      expect(nll[row]).toBeCloseTo(-(q[plain.targets[row]!] ?? NaN), 5);
      const kl = p.reduce((sum, value, v) => sum + Math.exp(value) * (value - q[v]!), 0);
      expect(divergence[row]! / kl).toBeCloseTo(1, 2);
      expect(agrees[row]).toBe(p.indexOf(Math.max(...p)) === q.indexOf(Math.max(...q)) ? 1 : 0);
    }
  });

  it('diverge by nothing without a reference', async () => {
    const { divergence, agrees } = await addon.scoreLogits(plain);
    expect([...divergence]).toEqual(Array(ROWS).fill(0));
    expect([...agrees]).toEqual(Array(ROWS).fill(1));
  });

  it.each([
    ['logits', { logits: new Float32Array(3) }],
    ['targets', { targets: new Int32Array(ROWS + 1) }],
    ['targets', { targets: Int32Array.of(0, 0, 0, 0, VOCAB) }],
    ['targets', { targets: Int32Array.of(0, 0, 0, 0, -1) }],
    ['reference', { reference: new Float32Array(VOCAB) }],
    ['reference', { reference: new Uint16Array(VOCAB) }],
    ['rows', { rows: 0 }],
  ] as readonly (readonly [string, Partial<ScoreJob>])[])('refuse wrong %s', (what, wrong) => {
    expect(() => addon.scoreLogits({ ...plain, ...wrong })).toThrow(what);
  });

  it('refuse to compress into too little memory', () => {
    const job = {
      rows: ROWS,
      vocab: VOCAB,
      logits: plain.logits,
      threads: 1,
      target: new Uint16Array(VOCAB),
    };
    expect(() => addon.compressLogits(job)).toThrow('target');
  });
});
