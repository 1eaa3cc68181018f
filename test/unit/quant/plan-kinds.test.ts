import { describe, expect, it } from 'vitest';
import type { Graph, StoredWeight } from '../../../src/graph/ir.js';
import type { SchemeOverride } from '../../../src/quant/config.js';
import { resolveScheme } from '../../../src/quant/registry.js';
import { addGemm, source, startGraph, tiedGraph, K } from './float-graph.js';
import { decisionFor, expertGraph, failureOf, plan, target } from './plan-fixture.js';
import type { Rules } from './plan-fixture.js';

const override = (scheme: string, setting: string, isOptional = false): SchemeOverride => ({
  scheme: resolveScheme(scheme),
  setting,
  isOptional,
});

describe('schemes of experts and of dense layers', () => {
  const linear = override('wint8', '"linear" of --quantization-config');
  const moe = override('wint4', '"moe" of --quantization-config');

  it.each([
    ['experts.0.down_proj', 'wint4 (rule 6: experts → wint4)'],
    ['shared_experts.down_proj', 'wint8 (rule 7: dense layers → wint8)'],
    ['o_proj', 'wint8 (rule 7: dense layers → wint8)'],
    ['mlp.gate', 'none (rule 5: routers → kept as stored by default)'],
    ['lm_head', 'none (rule 2: lm_head → kept as stored by default)'],
  ])('%s gets %s', (layer, expected) => {
    expect(decisionFor(layer, { scheme: 'none', linear, moe }, expertGraph())).toBe(expected);
  });

  it('leave the others to the scheme for everything else', () => {
    expect(decisionFor('o_proj', { scheme: 'wint8', moe }, expertGraph())).toBe(
      'wint8 (rule 7: everything else → wint8)',
    );
    expect(decisionFor('experts.0.down_proj', { scheme: 'none', linear }, expertGraph())).toBe(
      'none (rule 7: no quantization was asked for)',
    );
  });

  it('refuse a scheme for experts where there are none', () => {
    expect(failureOf({ moe })).toMatchObject({
      code: 'pattern_matches_nothing',
      message: '"moe" of --quantization-config has no effect: the model has no experts.',
    });
    expect(plan({ moe }, expertGraph()).warnings).toEqual([]);
  });

  it('only warn of it when the plan was written for both kinds of models', () => {
    const { warnings } = plan({ moe: override('wint4', '"moe_quant_type" of --quantization', true) });
    expect(warnings).toEqual(['"moe_quant_type" of --quantization has no effect: the model has no experts.']);
  });
});

describe('lm_head and embeddings', () => {
  it('are quantized when asked for', () => {
    const graph = expertGraph();
    expect(decisionFor('lm_head', { quantizeLmHead: true }, graph)).toBe(
      'wint8 (rule 1: --quantize-lm-head → wint8)',
    );
    expect(decisionFor('embed_tokens', { quantizeLmHead: true }, graph)).toMatch(/^none/);
    expect(decisionFor('embed_tokens', { quantizeEmbeddings: true }, graph)).toBe(
      'wint8 (rule 1: --quantize-embeddings → wint8)',
    );
    expect(decisionFor('lm_head', { quantizeEmbeddings: true }, graph)).toMatch(/^none/);
  });

  it('get the scheme of dense layers', () => {
    const linear = override('wint4', '"linear"');
    expect(decisionFor('lm_head', { linear, quantizeLmHead: true }, expertGraph())).toMatch(/^wint4/);
  });

  it.each<[string, Rules, string]>([
    [
      'the head',
      { quantizeLmHead: true },
      '--quantize-lm-head, and one tensor is both lm_head and embedding',
    ],
    [
      'the embeddings',
      { quantizeEmbeddings: true },
      '--quantize-embeddings, and one tensor is both lm_head and embedding',
    ],
    ['both', { quantizeLmHead: true, quantizeEmbeddings: true }, '--quantize-lm-head'],
  ])('are one object when tied and %s is asked for', (_, rules, why) => {
    const graph = tiedGraph();
    const { decisions, layers } = plan(rules, graph);
    expect(layers.map(({ kind, nodes }) => `${kind} ${nodes.join()}`)).toEqual([
      'tied embedding /lm_head/Gemm,/model/embed_tokens/Gather',
    ]);
    const head = decisions.get('/lm_head/Gemm');
    expect(head).toEqual([
      {
        name: 'model.embed_tokens',
        kind: 'tied embedding',
        scheme: resolveScheme('wint8'),
        reason: `rule 1: ${why} → wint8`,
      },
    ]);
    expect(decisions.get('/model/embed_tokens/Gather')).toBe(head);
  });

  it('stay as stored, both of them, when one of the nodes cannot read codes', () => {
    // The rows of this graph's embedding are an output, in bfloat16.
    expect(decisionFor('embed_tokens', { quantizeLmHead: true })).toBe(
      'none (rule 1: kept as stored, for its rows are read as they are stored)',
    );
  });

  it('have to be there', () => {
    const builder = startGraph();
    builder.output(addGemm(builder, { module: 'a', members: [source('a.weight', [16, K])] }));
    const graph = builder.build();
    expect(failureOf({ quantizeLmHead: true }, graph)).toMatchObject({
      code: 'pattern_matches_nothing',
      message: '--quantize-lm-head has no effect: the model has no lm_head.',
    });
    expect(failureOf({ quantizeEmbeddings: true }, graph).message).toContain('the model has no embedding');
  });
});

describe('weights that lie quantized in the checkpoint', () => {
  const format = { native: { format: 'int4', groupN: 1, groupK: 128 }, activation: 'none' } as const;
  const stored = { method: 'gptq', scheme: 'wint4:g128', format } as StoredWeight;
  const graph = (...names: readonly string[]): Graph =>
    expertGraph((name) => (names.some((part) => name.endsWith(part)) ? stored : undefined));

  it('win over everything and say so', () => {
    const decision = decisionFor('o_proj', { scheme: 'none' }, graph('o_proj'));
    expect(decision).toBe('wint4:g128 (rule 1: stored as wint4:g128 by the checkpoint (gptq))');
    expect(decisionFor('lm_head', { scheme: 'none' }, graph('lm_head'))).toMatch(/^wint4:g128/);
    expect(decisionFor('lm_head', { scheme: 'none' }, graph('o_proj'))).toMatch(/rule 3: lm_head/);
  });

  it('may be asked for by the name they have, and then the rest gets it too', () => {
    const stores = graph('o_proj');
    expect(decisionFor('o_proj', { scheme: 'wint4:g128' }, stores)).toMatch(/rule 1: stored/);
    expect(decisionFor('shared_experts.down_proj', { scheme: 'wint4:g128' }, stores)).toBe(
      'wint4:g128 (rule 7: everything else → wint4:g128)',
    );
  });

  it('leave other layers to their rules', () => {
    const moe = override('wint8', '"moe" of --quantization-config');
    const rules = { scheme: 'none', moe, targets: [target('lm_head', 'wint8')] };
    expect(decisionFor('experts.0.down_proj', rules, graph('o_proj'))).toMatch(/^wint8/);
    expect(decisionFor('lm_head', rules, graph('o_proj'))).toMatch(/^wint8/);
  });

  it.each<[string, Rules]>([
    ['a scheme for everything', { scheme: 'wint8' }],
    ['a target', { scheme: 'none', targets: [target('o_proj', 'wint8')] }],
    ['dense layers', { scheme: 'none', linear: override('wint8', '"linear"') }],
  ])('refuse another scheme of %s', (_, rules) => {
    const error = failureOf(rules, graph('o_proj'));
    expect(error).toMatchObject({ code: 'already_quantized', exitCode: 2 });
    expect(error.message).toContain(
      'stores model.layers.0.self_attn.o_proj as wint4:g128 (gptq), but wint8 was asked for',
    );
    expect(error.suggestions.join()).toContain('fdq convert --requantize --quantization wint8');
  });

  it('are counted in the error', () => {
    expect(failureOf({}, graph('down_proj', 'o_proj')).message).toContain('down_proj and 2 more layers as');
  });

  it('cannot be ignored, which is a warning', () => {
    const warnings = [
      '"o_proj" is to stay unquantized, but the checkpoint stores it quantized: it is used as stored.',
    ];
    const stores = graph('o_proj');
    expect(plan({ scheme: 'none', ignore: ['o_proj', 'lm_head'] }, stores).warnings).toEqual(warnings);
    expect(plan({ scheme: 'none', targets: [target('o_proj', 'none')] }, stores).warnings).toEqual(warnings);
  });

  it('are planned like all others to be quantized again', () => {
    const again = { scheme: 'wint8', requantize: true, ignore: ['lm_head'] };
    expect(decisionFor('o_proj', again, graph('o_proj', 'lm_head'))).toMatch(/^wint8 \(rule 7/);
    expect(plan(again, graph('lm_head')).warnings).toEqual([]);
  });

  it('are refused where no node can read them', () => {
    const builder = startGraph();
    const weight = builder.weight('a.weight', [{ ...source('a.weight', [K, 16]), stored }]);
    builder.output(
      builder.scope('a').value({
        opType: 'MatMul',
        inputs: ['x', weight],
        output: { dataType: 'float32', shape: ['tokens', 16] },
      }),
    );
    expect(failureOf({ scheme: 'none' }, builder.build())).toMatchObject({
      code: 'unsupported_model',
      message: expect.stringContaining('stored as [k, n]') as string,
    });
  });
});
