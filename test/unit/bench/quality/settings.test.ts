import { describe, expect, it } from 'vitest';
import { toQualityOptions } from '../../../../src/bench/quality/settings.js';
import type { QualityOptions } from '../../../../src/bench/quality/options.js';
import { BENCH_QUALITY_FLAGS } from '../../../../src/cli/bench-quality-flags.js';
import { resolveSettings, valuesOf, type ParsedFlags } from '../../../../src/cli/settings.js';

function optionsOf(flags: ParsedFlags): QualityOptions {
  const settings = resolveSettings(BENCH_QUALITY_FLAGS, { flags, environment: {}, configDir: '/none' });
  return toQualityOptions(valuesOf(settings), undefined);
}

describe('flags of fdq bench quality', () => {
  it('measure one model as it is, in windows of 256 that do not overlap', () => {
    expect(optionsOf({ model: 'm' })).toMatchObject({
      model: 'm',
      schemes: [{}],
      kvTypes: ['auto'],
      windows: { window: 256, stride: 256 },
      layers: false,
    });
    expect(optionsOf({ model: 'm' })).not.toHaveProperty('reference');
  });

  it('sweep schemes and types of the KV cache', () => {
    const { schemes, kvTypes } = optionsOf({
      model: 'm',
      quantization: ['none,wint4:g128', '{"linear": "wint8", "ignore": ["a", "b"]}'],
      'quantize-lm-head': true,
      'kv-cache-dtype': ['bf16,c8', 'int4'],
    });
    expect(schemes.map(({ quantization }) => quantization)).toEqual([
      'none',
      'wint4:g128',
      '{"linear":"wint8","ignore":["a","b"]}',
    ]);
    expect(schemes.every(({ quantizeLmHead }) => quantizeLmHead === true)).toBe(true);
    expect(kvTypes).toEqual(['bfloat16', 'int8', 'int4']);
  });

  it('take the stride from the window, and no reference for "none"', () => {
    expect(optionsOf({ model: 'm', window: '1k' }).windows).toEqual({ window: 1024, stride: 1024 });
    expect(optionsOf({ model: 'm', reference: 'none' }).reference).toBeNull();
    expect(optionsOf({ model: 'm', reference: './original' }).reference).toBe('./original');
  });

  it.each([
    [{}, 'Expected a model'],
    [{ model: 'm', window: '64', stride: '65' }, '--stride to be at most --window (64)'],
    [{ model: 'm', window: '1' }, '--window'],
    [{ model: 'm', 'kv-cache-dtype': ['bf16,fp7'] }, '--kv-cache-dtype'],
    [{ model: 'm', quantization: ['auto'] }, 'auto'],
    [{ model: 'm', reference: 'none', 'reference-logits': 'f' }, '--reference-logits or --reference none'],
  ] as readonly (readonly [ParsedFlags, string])[])('refuse %j', (flags, message) => {
    expect(() => optionsOf(flags)).toThrow(message);
  });
});
