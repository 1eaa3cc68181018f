import { describe, expect, it } from 'vitest';
import { parseLayerPattern } from '../../../src/quant/layer-pattern.js';

const ATTENTION = 'model.layers.0.self_attn';
const Q_PROJ = { name: `${ATTENTION}.q_proj`, layerNames: [`${ATTENTION}.qkv_proj`] };
const O_PROJ = { name: `${ATTENTION}.o_proj`, layerNames: [`${ATTENTION}.o_proj`] };
const HEAD = { name: 'model.embed_tokens', layerNames: ['model.embed_tokens', 'lm_head'] };
const SUBJECTS = { q: Q_PROJ, o: O_PROJ, head: HEAD };

function matched(text: string): string {
  const pattern = parseLayerPattern(text);
  expect(pattern.text).toBe(text);
  return Object.entries(SUBJECTS)
    .filter(([, subject]) => pattern.matches(subject))
    .map(([key]) => key)
    .join();
}

describe('parseLayerPattern', () => {
  it.each([
    [`${ATTENTION}.q_proj`, 'q'],
    [`${ATTENTION}.q_proj.weight`, 'q'],
    [`${ATTENTION}.qkv_proj`, 'q'],
    [`${ATTENTION}.qkv_proj.weight`, 'q'],
    ['qkv_proj', 'q'],
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
    ['re:model', 'q,o,head'],
    ['re:lm_head|.*o_proj', 'o,head'],
    ['re:.*qkv_proj', 'q'],
    ['re:(?!.*q_proj)', 'o,head'],
    ['re:.*(?<!q)_proj$', 'o'],
    ['re:model\\.[^l]', 'head'],
  ])('regular expression %s', (text, expected) => {
    expect(matched(text)).toBe(expected);
  });

  it.each([
    ['*.q_proj', 'q'],
    ['*_proj', 'q,o'],
    ['model.layers.?.self_attn.o_proj', 'o'],
    ['model.layers.[01].self_attn.*', 'q,o'],
    ['*[!q]_proj', 'o'],
    ['*.qkv_proj', 'q'],
    ['*proj.weight', 'q,o'],
    ['model*q', ''],
    ['model?layers*', 'q,o'],
    ['*[]', ''],
  ])('glob %s', (text, expected) => {
    expect(matched(text)).toBe(expected);
  });

  it('takes dots of globs literally', () => {
    const subject = { name: 'axb', layerNames: [] };
    expect(parseLayerPattern('a.*').matches(subject)).toBe(false);
    expect(parseLayerPattern('a*').matches(subject)).toBe(true);
  });

  it.each(['re:(', 're:[z-a]', '*[z-a]', '', ' '])('refuses %j', (text) => {
    expect(() => parseLayerPattern(text)).toThrow(
      expect.objectContaining({
        code: 'invalid_config',
        message: expect.stringContaining(JSON.stringify(text)) as string,
      }),
    );
  });
});
