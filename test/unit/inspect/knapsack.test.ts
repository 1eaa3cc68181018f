import { describe, expect, it } from 'vitest';
import { chooseWithin, totalOf, type Choice } from '../../../src/inspect/knapsack.js';
import { fc } from '../../helpers/properties.js';

/** Every selection, one after the other. */
function bestByTrial(layers: readonly (readonly Choice[])[], budget: number): number | undefined {
  let best: number | undefined;
  const visit = (layer: number, bytes: number, cost: number): void => {
    if (bytes > budget) return;
    if (layer === layers.length) {
      if (best === undefined || cost < best) best = cost;
      return;
    }
    for (const choice of layers[layer] ?? []) visit(layer + 1, bytes + choice.bytes, cost + choice.cost);
  };
  visit(0, 0, 0);
  return best;
}

const choice = fc.record({ bytes: fc.integer({ min: 1, max: 60 }), cost: fc.integer({ min: 0, max: 50 }) });
const problem = fc.array(fc.array(choice, { minLength: 1, maxLength: 4 }), { minLength: 1, maxLength: 6 });

describe('the knapsack', () => {
  it('finds what trying every selection finds', () => {
    fc.assert(
      fc.property(problem, fc.integer({ min: 1, max: 300 }), (layers, budget) => {
        const selection = chooseWithin(layers, budget);
        const best = bestByTrial(layers, budget);
        expect(selection === undefined).toBe(best === undefined);
        if (selection === undefined) return;
        const total = totalOf(layers, selection);
        expect(total.bytes).toBeLessThanOrEqual(budget);
        expect(total.cost).toBe(best);
      }),
      { numRuns: 500 },
    );
  });

  it('keeps the budget and the bound of the hull where bytes are rounded', () => {
    // Large odd sizes: the table's unit is thousands of bytes.
    const layers = Array.from({ length: 40 }, (_, layer) =>
      [4, 5, 8, 16].map((bits) => ({
        bytes: 1_000_003 * bits + 7919 * layer,
        cost: (layer + 1) * 4 ** (8 - bits),
      })),
    );
    const budget = 40 * 1_000_003 * 6 + 7919 * 780;
    const selection = chooseWithin(layers, budget) ?? [];
    const { bytes, cost } = totalOf(layers, selection);
    expect(bytes).toBeLessThanOrEqual(budget);
    expect(budget - bytes).toBeLessThan(8 * 1_000_003);
    // The relaxed problem, in which one layer may be between two choices, is at most one step cheaper.
    const spareStep = Math.max(...layers.map((choices) => (choices[0]?.cost ?? 0) - (choices[1]?.cost ?? 0)));
    const half = layers.map((choices) => choices[1]?.cost ?? 0).reduce((a, b) => a + b);
    expect(cost).toBeLessThan(half + spareStep);
    expect(chooseWithin(layers, budget)).toEqual(selection);
  });

  it('takes the best of everything when the budget allows it, and nothing when the smallest is too large', () => {
    const layers = [
      [
        { bytes: 2, cost: 9 },
        { bytes: 16, cost: 0 },
      ],
      [
        { bytes: 4, cost: 5 },
        { bytes: 4, cost: 1 },
        { bytes: 8, cost: 1 },
      ],
    ];
    expect(chooseWithin(layers, 1e9)).toEqual([1, 1]);
    expect(chooseWithin(layers, 6)).toEqual([0, 1]);
    expect(chooseWithin(layers, 5)).toBeUndefined();
    expect(chooseWithin([], 0)).toEqual([]);
  });
});
