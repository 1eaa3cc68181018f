import { describe, expect, it } from 'vitest';
import type { UserError } from '../../../src/errors.js';
import { makePlan } from '../../../src/quant/plan.js';
import { resolveScheme } from '../../../src/quant/registry.js';
import { addGemm, modelGraph, source, startGraph, K } from './float-graph.js';

/** `name: scheme (reason)` of every decision. */
function decide(scheme: string, ignore?: readonly string[], graph = modelGraph()): readonly string[] {
  const request = { graph, scheme: resolveScheme(scheme) };
  const plan = makePlan(ignore === undefined ? request : { ...request, ignore });
  return [...plan.decisions.values()]
    .flat()
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
