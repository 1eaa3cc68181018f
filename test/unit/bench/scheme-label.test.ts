import { describe, expect, it } from 'vitest';
import { labelScheme } from '../../../src/bench/scheme-label.js';

const plan = (scheme: string, ...layers: readonly string[]): Parameters<typeof labelScheme>[0] => ({
  scheme,
  layers: layers.map((name) => ({ scheme: name })),
});

describe('labelScheme', () => {
  it.each([
    ['what was asked for', plan('wint4:g128', 'wint4:g128', 'none'), 'wint4:g128'],
    ['none for floats', plan('none', 'none', 'none'), 'none'],
    ['the scheme of a checkpoint that is stored quantized', plan('none', 'none', 'w8a8', 'w8a8'), 'w8a8'],
    ['all of them, in one order', plan('none', 'wint8', 'w8a8', 'none', 'wint8'), 'w8a8+wint8'],
  ])('is %s', (_, planned, label) => {
    expect(labelScheme(planned, {})).toBe(label);
  });

  it('tells objects and flags apart', () => {
    const labels = [
      labelScheme(plan('mix_quant'), { quantizationConfig: { linear: 'wint8' } }),
      labelScheme(plan('mix_quant'), { quantizationConfig: { linear: 'wint4' } }),
      labelScheme(plan('wint8'), { quantization: 'wint8', quantizeLmHead: true }),
      labelScheme(plan('wint8'), { quantization: 'wint8', quantizeEmbeddings: true }),
    ];
    expect(new Set(labels).size).toBe(labels.length);
    expect(labels[0]).toMatch(/^mix_quant#[0-9a-f]{8}$/);
    expect(labels.slice(2)).toEqual(['wint8+lm_head', 'wint8+embeddings']);
  });
});
