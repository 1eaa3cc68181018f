import { describe, expect, it } from 'vitest';
import { UnsupportedError } from '../../../src/errors.js';
import { resolveScheme } from '../../../src/quant/registry.js';

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
    ['block_wise_fp8', ['block_wise_fp8', 'fp8_per_block', 'fp8_blockwise']],
    ['none', ['none', 'bf16', 'fp16', 'unquantized']],
    ['wint4:g128', ['wint4:g128', 'W4A16:g128', ' WINT4:G128 ']],
    ['wint8:g32', ['wint8:g32', 'int8:g32']],
  ])('%s', (name, texts) => {
    for (const text of texts) expect(resolveScheme(text).name).toBe(name);
  });

  it('tells the native side the format', () => {
    expect(resolveScheme('wint8').native).toEqual({ format: 'int8', groupN: 1, groupK: 0 });
    expect(resolveScheme('wint4:g64').native).toEqual({ format: 'int4', groupN: 1, groupK: 64 });
    expect(resolveScheme('block_wise_fp8').native).toEqual({ format: 'e4m3', groupN: 128, groupK: 128 });
    expect(resolveScheme('none').native).toBeNull();
  });

  it.each([
    ['wnt8', 'wint8'],
    ['block_wise_fp', 'block_wise_fp8'],
    ['wimt4:g128', 'wint4:g128'],
    ['', 'none'],
  ])('names what is nearest to %s', (text, nearest) => {
    const { code, message, hint } = failureOf(text);
    expect(code).toBe('unknown_scheme');
    expect(message).toContain(JSON.stringify(text));
    expect(message).toContain('none, wint8, wint8:g32');
    if (text !== '') expect(hint).toBe(`Did you mean ${nearest}?`);
  });

  it.each([
    ['wint4:g100', 'wint4 comes as wint4, wint4:g32, wint4:g64, wint4:g128', 'Pass wint4:g128.'],
    ['int8:', 'wint8 comes as', 'Pass wint8:g128.'],
    ['block_wise_fp8:g128', 'block_wise_fp8 takes no parameter', 'Pass block_wise_fp8.'],
  ])('refuses the parameter of %s', (text, problem, hint) => {
    const failure = failureOf(text);
    expect(failure.code).toBe('unknown_scheme');
    expect(failure.message).toContain(problem);
    expect(failure.hint).toBe(hint);
  });

  it.each([
    ['fp8_per_tensor', 'block_wise_fp8'],
    ['FP8', 'block_wise_fp8'],
    ['nvfp4', 'wint4:g32'],
    ['w8a8', 'wint8'],
    ['mix_quant', 'ignore'],
    ['gptq', 'already'],
    ['W4A16C16', 'ignore'],
    ['Wfp8Afp8C8', 'ignore'],
    ['nvfp4:g16', 'wint4:g32'],
  ])('knows %s and what to use instead', (text, hint) => {
    expect(() => resolveScheme(text)).toThrow(UnsupportedError);
    const failure = failureOf(text);
    expect(failure.code).toBe('unknown_scheme');
    expect(failure.message).toContain('Supported are: none, wint8');
    expect(failure.hint).toContain(hint);
  });
});
