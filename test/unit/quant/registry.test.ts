import { describe, expect, it } from 'vitest';
import { UnsupportedError } from '../../../src/errors.js';
import { resolveScheme, SCHEMES } from '../../../src/quant/registry.js';

function failureOf(text: string): { readonly code: string; readonly message: string; readonly hint: string } {
  try {
    resolveScheme(text);
  } catch (error) {
    const { code, message, suggestions } = error as UnsupportedError;
    return { code, message, hint: suggestions.join() };
  }
  throw new Error(`${text} is accepted`);
}

describe('resolveScheme', () => {
  it.each([
    ['wint8', ['wint8', 'W8A16', 'w8a16', 'int8', 'weight_only_int8', 'int8_per_channel_weight_only']],
    ['wint4', ['wint4', 'W4A16', 'w4a16', 'WInt4', 'int4', 'weight_only_int4']],
    ['wnf4', ['wnf4', 'WNF4A16', 'nf4']],
    ['wint2', ['wint2', 'W2A16']],
    ['nvfp4', ['nvfp4', 'modelopt_fp4']],
    ['mxfp4', ['mxfp4']],
    ['block_wise_fp8', ['block_wise_fp8', 'fp8_per_block', 'fp8_blockwise']],
    ['fp8_per_channel', ['fp8_per_channel', 'wfp8afp8', 'Wfp8Afp8']],
    ['fp8_per_tensor', ['fp8_per_tensor', 'tensor_wise_fp8', 'FP8']],
    ['w8a8', ['w8a8', 'W8A8']],
    ['w4a8', ['w4a8', 'W4A8']],
    ['w4afp8', ['w4afp8', 'W4Afp8']],
    ['wnf4a8', ['wnf4a8', 'WNF4A8']],
    ['none', ['none', 'bf16', 'fp16', 'unquantized']],
    ['wint4:g128', ['wint4:g128', 'W4A16:g128', ' WINT4:G128 ']],
    ['wint4:g32:mse', ['wint4:g32:mse', 'int4:g32:mse']],
    ['wint8:g32', ['wint8:g32', 'int8:g32']],
    ['w4a8:g64', ['w4a8:g64']],
    ['w4afp8:g128', ['W4Afp8:g128']],
  ])('%s', (name, texts) => {
    for (const text of texts) expect(resolveScheme(text).name).toBe(name);
  });

  it.each([
    ['wint8', { format: 'int8', groupN: 1, groupK: 0 }],
    ['wint4:g64', { format: 'int4', groupN: 1, groupK: 64 }],
    ['wint4:g64:mse', { format: 'int4', groupN: 1, groupK: 64, search: true }],
    ['wnf4', { format: 'nf4', groupN: 1, groupK: 64 }],
    ['wint2', { format: 'int2', groupN: -1, groupK: 0, block: { columns: 64, type: 'bfloat16' } }],
    ['nvfp4', { format: 'e2m1', groupN: 0, groupK: 0, block: { columns: 16, type: 'e4m3' } }],
    ['mxfp4', { format: 'e2m1', groupN: -1, groupK: 0, block: { columns: 32, type: 'e8m0' } }],
    ['block_wise_fp8', { format: 'e4m3', groupN: 128, groupK: 128 }],
    ['fp8_per_tensor', { format: 'e4m3', groupN: 0, groupK: 0 }],
    ['fp8_per_channel', { format: 'e4m3', groupN: 1, groupK: 0 }],
    ['none', null],
  ])('tells the native side the format of %s', (name, native) => {
    expect(resolveScheme(name).native).toEqual(native);
  });

  it('leaves only wint2 to fdq convert', () => {
    expect(SCHEMES.filter(({ online }) => !online).map(({ name }) => name)).toEqual(['wint2']);
  });

  it.each([
    ['wnt8', 'wint8'],
    ['block_wise_fp', 'block_wise_fp8'],
    ['wimt4:g128', 'wint4:g128'],
    ['fp8_per_chanel', 'fp8_per_channel'],
    ['', 'none'],
  ])('names what is nearest to %s', (text, nearest) => {
    const { code, message, hint } = failureOf(text);
    expect(code).toBe('unknown_scheme');
    expect(message).toContain(JSON.stringify(text));
    expect(message).toContain('(none, wint8, wint4, wnf4, ');
    expect(message).not.toContain(', wint8:g32');
    if (text !== '') expect(hint).toMatch(new RegExp(`^Did you mean one of ${nearest}, .+, .+\\?$`));
  });

  it.each([
    ['wint4:g100', 'wint4 comes as wint4, wint4:g32, wint4:g64, wint4:g128', 'Pass wint4:g128.'],
    ['int8:', 'wint8 comes as', 'Pass wint8.'],
    ['W4A16:g32:mes', 'wint4 comes as', 'Pass wint4:g32:mse.'],
    ['block_wise_fp8:g128', 'block_wise_fp8 takes no parameter', 'Pass block_wise_fp8.'],
    ['nvfp4:g16', 'nvfp4 takes no parameter', 'Pass nvfp4.'],
  ])('refuses the parameter of %s', (text, problem, hint) => {
    const failure = failureOf(text);
    expect(failure.code).toBe('unknown_scheme');
    expect(failure.message).toContain(problem);
    expect(failure.hint).toBe(hint);
  });

  it.each([
    ['mix_quant', 'dense_quant_type'],
    ['MixQuant', 'moe_quant_type'],
    ['gptq', 'leave --quantization out'],
    ['kvcache', '--kv-cache-dtype'],
    ['bitsandbytes', 'wnf4'],
    ['experts_int8', '"moe": "wint8"'],
  ])('knows %s, which is no scheme, and what to do instead', (text, hint) => {
    expect(() => resolveScheme(text)).toThrow(UnsupportedError);
    const failure = failureOf(text);
    expect(failure.code).toBe('unknown_scheme');
    expect(failure.message).toContain('Supported are: none, wint8');
    expect(failure.hint).toContain(hint);
  });
});
