import { describe, expect, it } from 'vitest';
import { UnsupportedError, UserError } from '../../../src/errors.js';
import { parseQuantization } from '../../../src/quant/config.js';
import type { QuantizationInputs } from '../../../src/quant/config.js';

function parse(inputs: QuantizationInputs): string {
  const { scheme, ignore } = parseQuantization(inputs);
  return [scheme.name, ...ignore].join(' ');
}

function failureOf(inputs: QuantizationInputs): UserError {
  try {
    parseQuantization(inputs);
  } catch (error) {
    if (error instanceof UserError) return error;
    throw error;
  }
  throw new Error('accepted');
}

describe('parseQuantization', () => {
  it.each<[string, QuantizationInputs, string]>([
    ['nothing', {}, 'none'],
    ['a name', { quantization: 'W4A16:g128' }, 'wint4:g128'],
    [
      'an object',
      { quantization: ' {"quantization": "wint8", "ignore": ["lm_head", "re:.*"]}' },
      'wint8 lm_head re:.*',
    ],
    ['an object without scheme', { quantization: '{"ignore": ["a"]}' }, 'none a'],
    ['a config', { config: { quantization: 'fp8_per_block' } }, 'block_wise_fp8'],
    ['both', { quantization: 'wint8', config: { ignore: ['a', 'b'] } }, 'wint8 a b'],
    [
      'two lists',
      { quantization: '{"ignore": ["a"]}', config: { ignore: ['b'], quantization: 'wint4' } },
      'wint4 a b',
    ],
    ['the same scheme twice', { quantization: 'w8a16', config: { quantization: 'wint8' } }, 'wint8'],
    ['undefined', { quantization: undefined, config: undefined }, 'none'],
    ['an empty list', { config: { ignore: [] } }, 'none'],
  ])('takes %s', (_, inputs, expected) => {
    expect(parse(inputs)).toBe(expected);
  });

  it('refuses two schemes', () => {
    const { code, message } = failureOf({ quantization: 'wint8', config: { quantization: 'wint4' } });
    expect(code).toBe('invalid_config');
    expect(message).toContain('says wint8 and --quantization-config says wint4');
  });

  it('refuses an unknown scheme inside an object', () => {
    expect(failureOf({ quantization: '{"quantization": "wint9"}' }).code).toBe('unknown_scheme');
  });

  it('refuses broken JSON', () => {
    const { code, message, cause } = failureOf({ quantization: '{wint8}' });
    expect(code).toBe('invalid_config');
    expect(message).toContain('{wint8}');
    expect(cause).toBeInstanceOf(SyntaxError);
  });

  it.each([
    [{ ignored: [] }, '"ignored"', 'Did you mean "ignore"?'],
    [{ quantisation: 'wint8' }, '"quantisation"', 'Did you mean "quantization"?'],
  ])('names the key nearest to %j', (config, key, hint) => {
    const error = failureOf({ config });
    expect(error).not.toBeInstanceOf(UnsupportedError);
    expect(error).toMatchObject({ code: 'invalid_config', suggestions: [hint] });
    expect(error.message).toContain(key);
  });

  it.each([
    'linear',
    'moe',
    'targets',
    'linear_scheme_override',
    'moe_scheme_override',
    'dense_quant_type',
    'modules_to_not_convert',
  ])('knows %s and does not take it yet', (key) => {
    for (const inputs of [
      { config: { [key]: 'wint8' } },
      { quantization: JSON.stringify({ [key]: 'wint8' }) },
    ]) {
      const error = failureOf(inputs);
      expect(error).toBeInstanceOf(UnsupportedError);
      expect(error).toMatchObject({ code: 'invalid_config', param: key });
      expect(error.message).toContain(`"${key}"`);
    }
  });

  it.each([
    [
      { ignore: 'lm_head' },
      '"ignore" of --quantization-config to be a list of layer names or patterns but received "lm_head"',
    ],
    [
      { ignore: ['a', 3] },
      '"ignore" of --quantization-config to be a list of layer names or patterns but received ["a",3]',
    ],
    [{ quantization: 8 }, '"quantization" of --quantization-config to be a scheme name but received 8'],
    [{ quantization: '' }, '"quantization" of --quantization-config to be a scheme name but received ""'],
    [
      { ignore: null },
      '"ignore" of --quantization-config to be a list of layer names or patterns but received null',
    ],
  ])('refuses %j', (config, message) => {
    const error = failureOf({ config });
    expect(error.code).toBe('invalid_config');
    expect(error.message).toContain(message);
    expect(error.suggestions).toHaveLength(1);
  });
});
