import { describe, expect, it } from 'vitest';
import { UnsupportedError, UserError } from '../../../src/errors.js';
import { parseQuantization } from '../../../src/quant/config.js';
import type { QuantizationInputs, QuantizationRequest } from '../../../src/quant/config.js';
import { SCHEMES } from '../../../src/quant/registry.js';

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
    ['image_moe_quant_type', 'experts for images'],
    ['quant_method', 'quantized already'],
    ['is_quantized', 'quantized already'],
    ['weight_block_size', 'quantized already'],
    ['moe_quant_config', 'quantized already'],
    ['desc_act', 'quantized already'],
  ])('knows %s and says why it is not taken', (key, reason) => {
    for (const inputs of [
      { config: { [key]: 'wint8' } },
      { quantization: JSON.stringify({ [key]: 'wint8' }) },
    ]) {
      const error = failureOf(inputs);
      expect(error).toBeInstanceOf(UnsupportedError);
      expect(error).toMatchObject({ code: 'invalid_config', param: key });
      expect(error.message).toContain(`"${key}"`);
      expect(error.message).toContain(reason);
    }
  });

  it.each([
    [{ ignore: 3 }, '"ignore" of --quantization-config to be a layer name or pattern, or a list of them'],
    [{ ignore: ['a', 3] }, 'or a list of them but received ["a",3]'],
    [{ ignore: null }, 'or a list of them but received null'],
    [{ quantization: 8 }, 'to be a scheme or precision name but received 8'],
    [{ quantization: '' }, 'to be a scheme or precision name but received ""'],
    [{ linear: { weight: 'int8' } }, '"linear" of --quantization-config to be a scheme or precision name'],
    [{ moe: false }, '"moe" of --quantization-config to be a scheme or precision name but received false'],
    [
      { targets: ['a'] },
      '"targets" of --quantization-config to be an object of patterns and schemes but received ["a"]',
    ],
    [
      { targets: { 're:.*': 4 } },
      '"targets.re:.*" of --quantization-config to be a scheme or precision name but received 4',
    ],
    [
      { quantize_lm_head: 'yes' },
      '"quantize_lm_head" of --quantization-config to be true or false but received "yes"',
    ],
    [{ kv_cache_quant_type: 8 }, '"kv_cache_quant_type" of --quantization-config to be a KV cache type'],
  ])('refuses %j', (config, message) => {
    const error = failureOf({ config });
    expect(error.code).toBe('invalid_config');
    expect(error.message).toContain(message);
    expect(error.suggestions).toHaveLength(1);
  });

  it.each(['[]', 'null', '"wint8"', '3'])('refuses %s in place of an object', (text) => {
    const config = JSON.parse(text) as Readonly<Record<string, unknown>>;
    const { code, message } = failureOf({ config });
    expect(code).toBe('invalid_config');
    expect(message).toContain(`Expected --quantization-config to be an object but received ${text}`);
  });
});

/** Everything but the lists, as text. */
function summary(inputs: QuantizationInputs): string {
  const { name, scheme, linear, moe, targets, quantizeLmHead, quantizeEmbeddings, kvCacheDtype } =
    parseQuantization(inputs);
  return [
    name,
    `rest=${scheme.name}`,
    ...(linear === undefined ? [] : [`linear=${linear.scheme.name}`]),
    ...(moe === undefined ? [] : [`moe=${moe.scheme.name}${moe.isOptional ? '?' : ''}`]),
    ...targets.map((target) => `${target.pattern}=${target.scheme.name}`),
    ...(quantizeLmHead ? ['lm_head'] : []),
    ...(quantizeEmbeddings ? ['embeddings'] : []),
    ...(kvCacheDtype === 'auto' ? [] : [`kv=${kvCacheDtype}`]),
  ].join(' ');
}

describe('schemes of single layers', () => {
  it.each<[QuantizationInputs['config'], string]>([
    [{ linear: 'wint8' }, 'mix_quant rest=none linear=wint8'],
    [{ linear_scheme_override: 'wint8' }, 'mix_quant rest=none linear=wint8'],
    [{ dense_quant_type: 'W8A16' }, 'mix_quant rest=none linear=wint8'],
    [{ moe: 'wint4' }, 'mix_quant rest=none moe=wint4'],
    [{ moe_scheme_override: 'wint4:g64' }, 'mix_quant rest=none moe=wint4:g64'],
    [{ quantization: 'wint4', moe_quant_type: 'wint4' }, 'wint4 rest=wint4 moe=wint4'],
    [{ quantization: 'wint8', linear: 'none' }, 'mix_quant rest=wint8 linear=none'],
    [
      { linear: 'wint8', linear_scheme_override: 'W8A16', dense_quant_type: 'int8', moe: 'wint8' },
      'wint8 rest=none linear=wint8 moe=wint8',
    ],
    [
      { targets: { 're:.*down_proj': 'wint8', 'model.layers.0.*': 'W4A16' } },
      'mix_quant rest=none re:.*down_proj=wint8 model.layers.0.*=wint4',
    ],
    [{ quantization: 'wint8', targets: { o_proj: 'none' } }, 'mix_quant rest=wint8 o_proj=none'],
    [{ targets: {} }, 'none rest=none'],
    [
      {
        quantization: 'mix_quant',
        dense_quant_type: 'wint8',
        moe_quant_type: 'wint4',
        kv_cache_quant_type: 'int8',
      },
      'mix_quant rest=none linear=wint8 moe=wint4? kv=int8',
    ],
    [{ quantization: 'online', linear: 'wint8', moe: 'wint4' }, 'mix_quant rest=none linear=wint8 moe=wint4'],
    [{ quantization: 'wint4', quantize_lm_head: true }, 'wint4 rest=wint4 lm_head'],
    [{ linear: 'wint4', quantize_embeddings: true }, 'mix_quant rest=none linear=wint4 embeddings'],
    [{ quantization: 'wint4', quantize_lm_head: false }, 'wint4 rest=wint4'],
  ])('%j', (config, expected) => {
    expect(summary({ config })).toBe(expected);
    expect(summary({ quantization: JSON.stringify(config) })).toBe(expected);
  });

  it('adds up flags, objects and configs', () => {
    const inputs = {
      quantization: '{"targets": {"a": "wint8"}, "ignore": "b", "modules_to_not_convert": "c"}',
      config: {
        quantization: 'wint4',
        targets: { a: 'int8', d: 'wint4' },
        ignore: ['e'],
        modules_to_not_convert: ['f', 'g'],
      },
      quantizeLmHead: true,
      quantizeEmbeddings: true,
    };
    expect(summary(inputs)).toBe('mix_quant rest=wint4 a=wint8 d=wint4 lm_head embeddings');
    const { ignore, modulesToNotConvert }: QuantizationRequest = parseQuantization(inputs);
    expect({ ignore, modulesToNotConvert }).toEqual({
      ignore: ['b', 'e'],
      modulesToNotConvert: ['c', 'f', 'g'],
    });
  });

  it('says where an override was written', () => {
    expect(parseQuantization({ config: { moe: 'wint4' } }).moe?.setting).toBe(
      '"moe" of --quantization-config',
    );
  });

  it.each<[string, QuantizationInputs, string]>([
    [
      'two spellings',
      { config: { linear: 'wint8', dense_quant_type: 'wint4' } },
      '"linear" of --quantization-config says wint8 and "dense_quant_type" of --quantization-config says wint4',
    ],
    [
      'two places',
      { quantization: '{"moe": "wint8"}', config: { moe: 'wint4' } },
      '"moe" of --quantization says wint8 and "moe" of --quantization-config says wint4',
    ],
    [
      'two schemes of a target',
      { quantization: '{"targets": {"a": "wint8"}}', config: { targets: { a: 'wint4' } } },
      '"targets" of --quantization for "a" says wint8 and "targets" of --quantization-config for "a" says wint4',
    ],
    [
      'mix_quant and a scheme',
      { quantization: 'wint8', config: { quantization: 'mix_quant', linear: 'wint8' } },
      '--quantization says wint8 and --quantization-config says mix_quant',
    ],
    [
      'a flag and a key',
      { quantization: 'wint8', config: { quantize_lm_head: false }, quantizeLmHead: true },
      '--quantize-lm-head says true and "quantize_lm_head" of --quantization-config says false',
    ],
    [
      'two KV cache types',
      { quantization: 'W8A16C8', kvCacheDtype: 'fp8' },
      '--kv-cache-dtype says fp8 and --quantization W8A16C8 says int8',
    ],
    [
      'a key and a flag for the KV cache',
      { config: { kv_cache_quant_type: 'int4' }, kvCacheDtype: 'bfloat16' },
      '--kv-cache-dtype says bfloat16 and "kv_cache_quant_type" of --quantization-config says int4',
    ],
    [
      'two precision names',
      { quantization: 'W8A16C8', config: { quantization: 'W8A16C16' } },
      'says wint8 with a KV cache of int8 and --quantization-config says wint8 with a KV cache of bfloat16',
    ],
  ])('refuses %s', (_, inputs, message) => {
    const error = failureOf(inputs);
    expect(error.code).toBe('invalid_config');
    expect(error.message).toContain(message);
    expect(error.suggestions).toEqual(['Say it in one of the two places.']);
  });

  it.each([
    [{ targets: { 'a.b': 'wint9' } }, 'In "targets" of --quantization-config for "a.b": The precision name'],
    [{ moe: 'wnt8' }, 'In "moe" of --quantization-config: Expected a quantization scheme'],
    [{ linear: 'W8A4' }, 'In "linear" of --quantization-config: The precision name "W8A4" says A4'],
  ])('says where the wrong name of %j is', (config, message) => {
    const error = failureOf({ config });
    expect(error.code).toBe('unknown_scheme');
    expect(error.message).toContain(message);
    expect(error.suggestions.length).toBeGreaterThan(0);
  });

  it('refuses a KV cache part of a single layer', () => {
    const error = failureOf({ config: { linear: 'W8A16C8' } });
    expect(error.message).toContain('about weights and activations but W8A16C8 has a KV cache part');
    expect(error.suggestions.join()).toContain('Write W8A16 there');
  });

  it.each(['mix_quant', 'MixQuant', 'online'])('refuses %s alone', (quantization) => {
    expect(failureOf({ quantization })).toMatchObject({
      code: 'invalid_config',
      message: expect.stringContaining('but none is given') as string,
    });
    expect(
      failureOf({ config: { quantization, kv_cache_quant_type: 'int8', ignore: ['a'] } }).message,
    ).toContain('but none is given');
  });

  it.each<[string, QuantizationInputs]>([
    ['--quantize-lm-head', { quantizeLmHead: true }],
    ['--quantize-embeddings', { quantizeEmbeddings: true }],
    ['--quantize-lm-head', { quantization: 'wint8', config: { linear: 'none' }, quantizeLmHead: true }],
    ['--quantize-lm-head', { config: { moe: 'wint8', quantize_lm_head: true } }],
  ])('refuses %s without a scheme', (flag, inputs) => {
    const error = failureOf(inputs);
    expect(error).toMatchObject({ code: 'invalid_config', param: flag.slice(2) });
    expect(error.message).toContain(`${flag} is set, but nothing says which scheme`);
    const layer = flag === '--quantize-lm-head' ? 'lm_head' : 'model.embed_tokens';
    expect(error.suggestions[1]).toContain(`'{"targets": {"${layer}": "wint8"}}'`);
  });
});

describe('precision names and KV cache types', () => {
  it.each<[QuantizationInputs, string]>([
    [{ quantization: 'W4A16C16' }, 'wint4 rest=wint4 kv=bfloat16'],
    [{ quantization: 'w8a16c8' }, 'wint8 rest=wint8 kv=int8'],
    [{ quantization: 'WInt4' }, 'wint4 rest=wint4'],
    [{ quantization: 'W4A16Cfp8:g128' }, 'wint4:g128 rest=wint4:g128 kv=fp8'],
    [{ quantization: 'W16A16C4' }, 'none rest=none kv=int4'],
    [{ quantization: 'W8A16C8', kvCacheDtype: 'auto' }, 'wint8 rest=wint8 kv=int8'],
    [{ quantization: 'W8A16C8', kvCacheDtype: 'int8' }, 'wint8 rest=wint8 kv=int8'],
    [{ quantization: 'wint8', kvCacheDtype: 'float32' }, 'wint8 rest=wint8 kv=float32'],
    [{ config: { kv_cache_quant_type: 'float8_e4m3fn' } }, 'none rest=none kv=fp8'],
    [{ config: { kv_cache_quant_type: 'C16' } }, 'none rest=none kv=bfloat16'],
    [{ config: { kv_cache_quant_type: 'none' }, kvCacheDtype: 'int4' }, 'none rest=none kv=int4'],
  ])('%j', (inputs, expected) => {
    expect(summary(inputs)).toBe(expected);
  });

  it.each(['W8A16C3', 'W5A16', 'W8A8:g7'])('refuses %s', (quantization) => {
    expect(failureOf({ quantization }).code).toBe('unknown_scheme');
  });

  it.each([
    ['int8_zp', 'no zero points'],
    ['block_wise_fp8', 'write fp8'],
    ['fp8_e5m2', 'e4m3'],
  ])('knows the KV cache type %s and says why it is not taken', (type, reason) => {
    const error = failureOf({ config: { kv_cache_quant_type: type } });
    expect(error).toBeInstanceOf(UnsupportedError);
    expect(error.message).toContain(reason);
  });

  it.each(['int9', 'toString'])('refuses the KV cache type %s', (type) => {
    const error = failureOf({ config: { kv_cache_quant_type: type } });
    expect(error).not.toBeInstanceOf(UnsupportedError);
    expect(error).toMatchObject({ code: 'invalid_config' });
    expect(error.message).toContain(`(auto, none, float32`);
  });
});

describe('schemes that are not computed while a model loads', () => {
  const offline = SCHEMES.filter(({ online }) => !online).map(({ name }) => name);

  it.each(offline)('%s is refused with what to do', (name) => {
    for (const inputs of [{ quantization: name }, { config: { linear: name } }]) {
      const error = failureOf(inputs);
      expect(error).toBeInstanceOf(UnsupportedError);
      expect(error.suggestions.join()).toContain(`fdq convert <model> --quantization ${name}`);
    }
  });

  it.each(offline)('%s may be written to files', (name) => {
    expect(summary({ quantization: name, offline: true })).toBe(`${name} rest=${name}`);
  });
});
