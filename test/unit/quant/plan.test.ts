import { describe, expect, it } from 'vitest';
import type { UserError } from '../../../src/errors.js';
import { makePlan } from '../../../src/quant/plan.js';
import { resolveScheme } from '../../../src/quant/registry.js';
import { addGemm, modelGraph, source, startGraph, tiedGraph, K } from './float-graph.js';
import { decisionFor, expertGraph, failureOf, plan, target } from './plan-fixture.js';
import type { Rules } from './plan-fixture.js';

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
  });
});
