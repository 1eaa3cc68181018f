import { expect, it } from 'vitest';
import { summarizeQuantization } from '../../../src/quant/report.js';
import type { LayerReport } from '../../../src/quant/report.js';

function report(name: string, fields: Partial<LayerReport> = {}): LayerReport {
  return {
    name,
    tensor: `${name}.weight`,
    node: `/${name}/QuantLinear`,
    shape: [10, 20],
    storedType: 'bfloat16',
    scheme: 'wint8',
    reason: 'everything',
    bytesBefore: 400,
    bytesAfter: 250,
    ...fields,
  };
}

it('adds up by scheme and reason, and counts a shared tensor once', () => {
  const kept = { scheme: 'none', bytesAfter: 400 };
  const summary = summarizeQuantization([
    report('a'),
    report('b'),
    report('a', { node: '/again/QuantLinear' }),
    ...['c', 'd', 'e', 'f'].map((name) => report(name, { ...kept, reason: 'ignored' })),
    report('g', { ...kept, reason: 'routers' }),
  ]);
  expect(summary).toEqual({
    layers: 7,
    quantizedLayers: 2,
    parameters: 1400,
    bytesBefore: 2800,
    bytesAfter: 2500,
    bitsPerParameter: (8 * 2500) / 1400,
    schemes: [
      { scheme: 'wint8', layers: 2, parameters: 400, bytesBefore: 800, bytesAfter: 500 },
      { scheme: 'none', layers: 5, parameters: 1000, bytesBefore: 2000, bytesAfter: 2000 },
    ],
    kept: [
      { reason: 'ignored', layers: 4, examples: ['c', 'd', 'e'] },
      { reason: 'routers', layers: 1, examples: ['g'] },
    ],
  });
});

it('is all zero without layers', () => {
  expect(summarizeQuantization([])).toMatchObject({ layers: 0, bitsPerParameter: 0, schemes: [], kept: [] });
});
