import { describe, expect, it } from 'vitest';
import { parseLayerPattern, parseModulePattern } from '../../../src/quant/layer-pattern.js';

const ATTENTION = 'model.layers.0.self_attn';
const QKV = {
  members: ['q', 'k', 'v'].map((part) => `${ATTENTION}.${part}_proj`),
  layerNames: [`${ATTENTION}.qkv_proj`],
};
const O_PROJ = { members: [`${ATTENTION}.o_proj`], layerNames: [`${ATTENTION}.o_proj`] };
const HEAD = { members: ['model.embed_tokens'], layerNames: ['model.embed_tokens', 'lm_head'] };

/** The last parts of the matched names. */
function matched(text: string, parse = parseLayerPattern): string {
  const pattern = parse(text, 'ignore');
  expect(pattern.text).toBe(text);
  return [QKV, O_PROJ, HEAD]
    .flatMap((subject) => pattern.match(subject))
    .map((name) => name.replace(/.*\./, '').replace('_proj', '').replace('embed_tokens', 'head'))
    .join();
}

describe('parseLayerPattern', () => {
  it.each([
    [`${ATTENTION}.q_proj`, 'q'],
    [`${ATTENTION}.q_proj.weight`, 'q'],
    [`${ATTENTION}.qkv_proj`, 'q,k,v'],
    [`${ATTENTION}.qkv_proj.weight`, 'q,k,v'],
    ['qkv_proj', 'q,k,v'],
    ['v_proj', 'v'],
    ['o_proj', 'o'],
    ['lm_head', 'head'],
    ['proj', ''],
    ['self_attn.q_proj', ''],
    [`${ATTENTION}.q`, ''],
  ])('exact name %s', (text, expected) => {
    expect(matched(text)).toBe(expected);
  });

  it.each([
    ['re:.*[qo]_proj', 'q,o'],
    ['re:.*q_proj\\.weight$', 'q'],
    ['re:.*q_proj$', 'q'],
    ['re:self_attn', ''],
    ['re:model', 'q,k,v,o,head'],
    ['re:.*v_proj', 'v'],
    ['re:.*[qv]_proj', 'q,v'],
    ['re:.*(qkv|o)_proj', 'q,k,v,o'],
    ['re:lm_head|.*o_proj', 'o,head'],
    ['re:.*qkv_proj', 'q,k,v'],
    ['re:(?!.*q_proj$)', 'k,v,o,head'],
    ['re:(?!.*[qkv]_proj$)', 'o,head'],
    ['re:(?!.*_proj|.*q_proj|.*embed)', ''],
    ['re:.*(?<!q)_proj$', 'k,v,o'],
    ['re:.*(?<![qkv])_proj', 'o'],
    ['re:model\\.[^l]', 'head'],
  ])('regular expression %s', (text, expected) => {
    expect(matched(text)).toBe(expected);
  });

  it.each([
    ['*.q_proj', 'q'],
    ['*_proj', 'q,k,v,o'],
    ['*v_proj', 'v'],
    ['model.layers.?.self_attn.o_proj', 'o'],
    ['model.layers.[01].self_attn.*', 'q,k,v,o'],
    ['*[!q]_proj', 'k,v,o'],
    ['*[!qkv]_proj', 'o'],
    ['*.qkv_proj', 'q,k,v'],
    ['*proj.weight', 'q,k,v,o'],
    ['model*q', ''],
    ['model?layers*', 'q,k,v,o'],
    ['*[]', ''],
  ])('glob %s', (text, expected) => {
    expect(matched(text)).toBe(expected);
  });

  it('takes dots of globs literally', () => {
    const subject = { members: ['axb'], layerNames: [] };
    expect(parseLayerPattern('a.*', 'ignore').match(subject)).toEqual([]);
    expect(parseLayerPattern('a*', 'ignore').match(subject)).toEqual(['axb']);
  });

  it.each(['re:(', 're:[z-a]', '*[z-a]', '', ' '])('refuses %j', (text) => {
    expect(() => parseLayerPattern(text, 'targets')).toThrow(
      expect.objectContaining({
        code: 'invalid_config',
        param: 'targets',
        message: expect.stringContaining(JSON.stringify(text)) as string,
      }),
    );
  });
});

describe('parseModulePattern', () => {
  it.each([
    ['self_attn', 'q,k,v,o'],
    ['model.layers.0', 'q,k,v,o'],
    ['model.layers.1', ''],
    ['layers.0.self_attn.o_proj', 'o'],
    ['model.layers.*.self_attn', 'q,k,v,o'],
    ['model', 'q,k,v,o,head'],
    ['q_proj', 'q'],
    ['proj', ''],
    ['self', ''],
    ['qkv_proj', 'q,k,v'],
    ['lm_head', 'head'],
    ['[qk]_proj', 'q,k'],
    ['o_proj.weight', 'o'],
    ['re:.*v_proj', 'v'],
    ['re:self_attn', ''],
  ])('%s', (text, expected) => {
    expect(matched(text, parseModulePattern)).toBe(expected);
  });

  it.each(['', ' ', '[z-a]', 're:('])('refuses %j', (text) => {
    expect(() => parseModulePattern(text, 'modules_to_not_convert')).toThrow(
      expect.objectContaining({ code: 'invalid_config', param: 'modules_to_not_convert' }),
    );
  });
});
