import { describe, expect, it } from 'vitest';
import type { UserError } from '../../../src/errors.js';
import type { Graph, StoredWeight, WeightSource } from '../../../src/graph/ir.js';
import type { SchemeOverride } from '../../../src/quant/config.js';
import { makePlan } from '../../../src/quant/plan.js';
import type { PlanRequest } from '../../../src/quant/plan.js';
import { resolveScheme } from '../../../src/quant/registry.js';
import type { QuantScheme } from '../../../src/quant/scheme.js';
import { addEmbedding, addGemm, modelGraph, source, startGraph, tiedGraph, K } from './float-graph.js';

/** `name: scheme (reason)` of every decision. */
function decide(scheme: string, ignore?: readonly string[], graph = modelGraph()): readonly string[] {
  const request = { graph, scheme: resolveScheme(scheme) };
  const plan = makePlan(ignore === undefined ? request : { ...request, ignore });
  return plan.layers
    .flatMap(({ nodes }) => plan.decisions.get(nodes[0]) ?? [])
    .map(
      ({ name, scheme: { name: chosen }, reason }) =>
        `${name.replace('model.layers.0.', '')}: ${chosen} (${reason})`,
    );
}

describe('makePlan', () => {
  it('gives the scheme to all but what is kept by default', () => {
    expect(decide('wint4:g128')).toEqual([
      'self_attn.q_proj: wint4:g128 (rule 6: everything else → wint4:g128)',
      'self_attn.k_proj: wint4:g128 (rule 6: everything else → wint4:g128)',
      'self_attn.v_proj: wint4:g128 (rule 6: everything else → wint4:g128)',
      'mlp.gate_proj: wint4:g128 (rule 6: everything else → wint4:g128)',
      'mlp.up_proj: wint4:g128 (rule 6: everything else → wint4:g128)',
      'mlp.gate: none (rule 5: routers → kept as stored by default)',
      'mlp.shared_expert_gate: none (rule 4: shared-expert gates → kept as stored by default)',
      'model.embed_tokens: none (rule 1: embeddings → kept as stored by default)',
    ]);
  });

  it('keeps lm_head, and a norm that is a matrix', () => {
    const builder = startGraph();
    for (const module of ['lm_head', 'model.layers.0.input_layernorm', 'model.norm', 'model.normal_proj']) {
      builder.output(addGemm(builder, { module, members: [source(`${module}.weight`, [16, K])] }));
    }
    expect(decide('wint8', [], builder.build())).toEqual([
      'lm_head: none (rule 2: lm_head → kept as stored by default)',
      'input_layernorm: none (rule 3: norms → kept as stored by default)',
      'model.norm: none (rule 3: norms → kept as stored by default)',
      'model.normal_proj: wint8 (rule 6: everything else → wint8)',
    ]);
  });

  it('lets the first rule win and numbers them in order', () => {
    const decisions = decide('wint8', [
      're:.*[qk]_proj',
      'q_proj',
      'model.layers.0.mlp.gate_up_proj',
      'lm_head',
    ]);
    expect(decisions.slice(0, 5)).toEqual([
      'self_attn.q_proj: none (rule 1: re:.*[qk]_proj → ignored)',
      'self_attn.k_proj: none (rule 1: re:.*[qk]_proj → ignored)',
      'self_attn.v_proj: wint8 (rule 10: everything else → wint8)',
      'mlp.gate_proj: none (rule 3: model.layers.0.mlp.gate_up_proj → ignored)',
      'mlp.up_proj: none (rule 3: model.layers.0.mlp.gate_up_proj → ignored)',
    ]);
    expect(decisions.at(-1)).toBe('model.embed_tokens: none (rule 4: lm_head → ignored)');
  });

  it('reaches a member by its own name before its fused one', () => {
    const kept = decide('wint8', ['re:.*v_proj', '*up_proj']).filter((line) => line.includes('ignored'));
    expect(kept).toEqual([
      'self_attn.v_proj: none (rule 1: re:.*v_proj → ignored)',
      'mlp.up_proj: none (rule 2: *up_proj → ignored)',
    ]);
  });

  it('says so when nothing is to be quantized', () => {
    expect(decide('none')[0]).toBe('self_attn.q_proj: none (rule 6: no quantization was asked for)');
  });

  it('keeps layers that a scheme or the kernel cannot take, and says why', () => {
    const builder = startGraph();
    const weight = builder.weight('stored.weight', [source('stored.weight', [K, 16])]);
    builder.output(
      builder.scope('stored').value({
        opType: 'MatMul',
        inputs: ['x', weight],
        output: { dataType: 'float32', shape: ['tokens', 16] },
      }),
    );
    expect(decide('wint8', [], builder.build())).toEqual([
      'stored: none (rule 6: kept as stored, for its weight is stored as [k, n], not [n, k])',
    ]);
    const picky = { ...resolveScheme('wint8'), name: 'picky', accepts: () => 'is too small' };
    const [decision] = makePlan({ graph: modelGraph(), scheme: picky }).decisions.values();
    expect(decision?.[0]).toMatchObject({
      scheme: { name: 'none' },
      reason: 'rule 6: kept as stored, for it is too small',
    });
  });

  it('may be told to ignore what is never quantized', () => {
    expect(decide('wint8', ['model.norm', 'model.embed_tokens', 're:.*norm'])).toHaveLength(8);
  });

  it.each([
    ['model.layers.0.self_attn.qproj', 'model.layers.0.self_attn.q_proj'],
    ['re:model.layers.7.mlp.up_proj', 'model.layers.0.mlp.up_proj'],
    ['*.w1', 'model.norm'],
  ])('refuses %s, which matches nothing', (text, nearest) => {
    let error: UserError | undefined;
    try {
      decide('wint8', ['re:.*', text]);
    } catch (caught) {
      error = caught as UserError;
    }
    expect(error).toMatchObject({ code: 'pattern_matches_nothing', param: 'ignore' });
    expect(error?.message).toContain(JSON.stringify(text));
    expect(error?.suggestions.join()).toContain(nearest);
  });
});

type Rules = Partial<Omit<PlanRequest, 'graph' | 'scheme'>> & { readonly scheme?: string };

function plan({ scheme = 'wint8', ...rules }: Rules, graph = modelGraph()): ReturnType<typeof makePlan> {
  return makePlan({ graph, scheme: resolveScheme(scheme), ...rules });
}

/** The scheme and the reason of one layer. */
function decisionFor(layer: string, rules: Rules, graph = modelGraph()): string {
  const found = [...plan(rules, graph).decisions.values()].flat().find(({ name }) => name.endsWith(layer));
  if (found === undefined) throw new Error(`no layer ${layer}`);
  return `${found.scheme.name} (${found.reason})`;
}

function failureOf(rules: Rules, graph = modelGraph()): UserError {
  try {
    plan(rules, graph);
  } catch (error) {
    return error as UserError;
  }
  throw new Error('accepted');
}

const target = (pattern: string, scheme: string): { pattern: string; scheme: QuantScheme } => ({
  pattern,
  scheme: resolveScheme(scheme),
});

const override = (scheme: string, setting: string, isOptional = false): SchemeOverride => ({
  scheme: resolveScheme(scheme),
  setting,
  isOptional,
});

/** Experts, a head of its own and an embedding that is a Gather and a Cast. */
function expertGraph(stored?: (name: string) => StoredWeight | undefined): Graph {
  const builder = startGraph();
  const weight = (name: string, shape: readonly number[]): WeightSource => {
    const found = stored?.(name);
    return { ...source(`${name}.weight`, shape), ...(found === undefined ? {} : { stored: found }) };
  };
  builder.output(addEmbedding(builder));
  for (const module of [
    'model.layers.0.mlp.experts.0.down_proj',
    'model.layers.0.mlp.shared_experts.down_proj',
    'model.layers.0.mlp.gate',
    'model.layers.0.self_attn.o_proj',
    'lm_head',
  ]) {
    builder.output(addGemm(builder, { module, members: [weight(module, [16, K])] }));
  }
  return builder.build();
}

describe('modules_to_not_convert', () => {
  it('means everything below a module', () => {
    const graph = modelGraph();
    const kept = plan({ modulesToNotConvert: ['self_attn', 'gate_proj'] }, graph);
    expect(
      [...kept.decisions.values()]
        .flat()
        .filter(({ reason }) => reason.includes('ignored'))
        .map(({ name, reason }) => `${name.replace(/.*\./, '')} ${reason}`),
    ).toEqual([
      'q_proj rule 1: self_attn → ignored',
      'k_proj rule 1: self_attn → ignored',
      'v_proj rule 1: self_attn → ignored',
      'gate_proj rule 2: gate_proj → ignored',
    ]);
  });

  it('has to match', () => {
    expect(failureOf({ modulesToNotConvert: ['visual'] })).toMatchObject({
      code: 'pattern_matches_nothing',
      param: 'modules_to_not_convert',
    });
  });
});

describe('targets', () => {
  it('give layers schemes of their own, members of a fused layer too', () => {
    const targets = [target('re:.*[qk]_proj', 'wint4'), target('model.layers.0.mlp.up_proj', 'none')];
    expect(decisionFor('q_proj', { targets })).toBe('wint4 (rule 1: target re:.*[qk]_proj → wint4)');
    expect(decisionFor('v_proj', { targets })).toBe('wint8 (rule 8: everything else → wint8)');
    expect(decisionFor('up_proj', { targets })).toBe(
      'none (rule 2: target model.layers.0.mlp.up_proj → none)',
    );
    expect(decisionFor('q_proj', { targets, scheme: 'none' })).toMatch(/^wint4/);
  });

  it('reach what is kept by default only when they mean nothing else', () => {
    const everything = [target('re:.*', 'wint4')];
    expect(decisionFor('mlp.gate', { targets: everything })).toBe(
      'none (rule 6: routers → kept as stored by default)',
    );
    expect(decisionFor('gate_proj', { targets: everything })).toMatch(/^wint4/);
    const router = [target('re:.*mlp.gate$', 'wint4')];
    expect(decisionFor('mlp.gate', { targets: router })).toBe(
      'wint4 (rule 1: target re:.*mlp.gate$ → wint4)',
    );
    expect(decisionFor('o_proj', { targets: [target('lm_head', 'wint4')] }, expertGraph())).toMatch(/^wint8/);
    expect(decisionFor('lm_head', { targets: [target('lm_head', 'wint4')] }, expertGraph())).toMatch(
      /^wint4 \(rule 1/,
    );
  });

  it('have to match a layer, not only a tensor', () => {
    expect(failureOf({ targets: [target('model.norm', 'wint8')] })).toMatchObject({
      code: 'pattern_matches_nothing',
      param: 'targets',
    });
    const { suggestions } = failureOf({ targets: [target('model.layers.0.mlp.upproj', 'wint8')] });
    expect(suggestions.join()).toContain('model.layers.0.mlp.up_proj');
    expect(failureOf({ targets: [target('upproj', 'wint8')] }).suggestions).toEqual([
      'The nearest layer names are up_proj, q_proj, k_proj.',
    ]);
  });

  it.each<[string, Rules, string]>([
    [
      'two schemes for a layer',
      { targets: [target('*.q_proj', 'wint8'), target('re:.*self_attn', 'wint4')] },
      'self_attn.q_proj but "targets" gives "*.q_proj" wint8 and "targets" gives "re:.*self_attn" wint4',
    ],
    [
      'a scheme for what is ignored',
      { ignore: ['re:.*proj'], targets: [target('v_proj', 'wint4')] },
      'self_attn.v_proj but "ignore" has "re:.*proj" and "targets" gives "v_proj" wint4',
    ],
    [
      'asking for what is ignored',
      { modulesToNotConvert: ['lm_head'], quantizeLmHead: true },
      'model.embed_tokens but "modules_to_not_convert" has "lm_head" and --quantize-lm-head asks for it',
    ],
  ])('refuse %s', (_, rules, message) => {
    const error = failureOf(rules);
    expect(error.code).toBe('invalid_config');
    expect(error.message).toContain(message);
  });

  it('may agree', () => {
    const targets = [target('*.q_proj', 'wint4'), target('q_proj', 'W4A16')];
    expect(decisionFor('q_proj', { targets })).toMatch(/^wint4 \(rule 1/);
  });

  it('win over a flag that asks for the same layer', () => {
    const rules = { targets: [target('lm_head', 'wint4')], quantizeLmHead: true };
    expect(decisionFor('embed_tokens', rules, tiedGraph())).toBe('wint4 (rule 1: target lm_head → wint4)');
  });

  it('are planned in time when there is one for every layer', () => {
    const builder = startGraph();
    const modules = Array.from({ length: 4000 }, (_, index) => `model.layers.${index}.mlp.down_proj`);
    for (const module of modules) {
      builder.output(addGemm(builder, { module, members: [source(`${module}.weight`, [16, K])] }));
    }
    const targets = modules.map((module, index) => target(module, index % 2 === 0 ? 'wint8' : 'wint4'));
    const { decisions } = plan({ scheme: 'none', targets }, builder.build());
    const schemes = [...decisions.values()].flat().map(({ scheme: { name } }) => name);
    expect(schemes.filter((name) => name === 'wint4')).toHaveLength(2000);
  }, 10_000);
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
