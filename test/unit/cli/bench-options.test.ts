import { describe, expect, it } from 'vitest';
import {
  BENCH_MODEL_FLAGS,
  BENCH_QUANTIZATION_FLAGS,
  BENCH_SPEED_FLAGS,
} from '../../../src/cli/bench-flags.js';
import { toSpeedSettings, type SpeedSettings } from '../../../src/cli/bench-options.js';
import { resolveSettings, valuesOf, type ParsedFlags } from '../../../src/cli/settings.js';

const TABLE = { ...BENCH_MODEL_FLAGS, ...BENCH_QUANTIZATION_FLAGS, ...BENCH_SPEED_FLAGS } as const;

function settingsOf(flags: ParsedFlags, environment: Readonly<Record<string, string>> = {}): SpeedSettings {
  const settings = resolveSettings(TABLE, { flags, environment, configDir: '/no/such/folder' });
  return toSpeedSettings(valuesOf(settings));
}

describe('toSpeedSettings', () => {
  it('splits lists, also repeated ones', () => {
    const settings = settingsOf({
      model: 'm',
      quantization: ['none, wint8', 'wint4:g128'],
      'n-prompt': ['64,1k'],
      'n-depth': ['0', '4096'],
      'batch-size': ['1,8,32'],
      'kv-cache-dtype': ['bf16,c8'],
      threads: ['1,2'],
    });
    expect(settings).toMatchObject({
      model: 'm',
      schemes: ['none', 'wint8', 'wint4:g128'],
      promptTokens: [64, 1024],
      steps: [128],
      depths: [0, 4096],
      sequences: [1, 8, 32],
      kvCacheDtypes: ['bfloat16', 'int8'],
      threads: [1, 2],
      repetitions: 5,
    });
  });

  it('takes an object as one scheme, wherever it comes from', () => {
    const object = '{"quantization":"wint8","ignore":["a","b"]}';
    expect(settingsOf({ model: 'm', quantization: [object, 'wint4'] }).schemes).toEqual([object, 'wint4']);
    expect(settingsOf({ model: 'm' }, { FDQ_QUANTIZATION: object }).schemes).toEqual([object]);
    expect(settingsOf({ model: 'm' }, { FDQ_QUANTIZATION: 'wint8,wint4' }).schemes).toEqual([
      'wint8',
      'wint4',
    ]);
  });

  it('measures the weights as they are when no scheme is named', () => {
    expect(settingsOf({ model: 'm' }).schemes).toEqual([undefined]);
  });

  it.each([
    [{}, 'Expected a model'],
    [{ model: 'm', quantization: ['wint8,auto'] }, 'auto chooses schemes'],
    [{ model: 'm', 'n-prompt': ['1,,2'] }, '--n-prompt'],
    [{ model: 'm', 'n-gen': ['-1'] }, '--n-gen'],
    [{ model: 'm', threads: ['0'] }, '--threads'],
    [{ model: 'm', 'kv-cache-dtype': ['int7'] }, '--kv-cache-dtype'],
  ] as const)('refuses %j', (flags, text) => {
    expect(() => settingsOf(flags)).toThrow(text);
  });
});
