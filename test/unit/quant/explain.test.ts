import { describe, expect, it } from 'vitest';
import { explainLayer } from '../../../src/quant/explain.js';
import { makePlan } from '../../../src/quant/plan.js';
import { resolveScheme } from '../../../src/quant/registry.js';
import { modelGraph, tiedGraph } from './float-graph.js';

const scheme = resolveScheme('wint8');
const plan = makePlan({
  graph: modelGraph(),
  scheme,
  ignore: ['q_proj', 're:.*gate'],
  targets: [{ pattern: '*.v_proj', scheme: resolveScheme('wint4') }],
});

/** `rule: scheme`, the one that decided with a star. */
function verdicts(text: string): readonly string[] {
  return explainLayer(plan, text).flatMap(({ name, kind, rules }) => [
    `${name.replace(/.*\.(?=\w+\.\w+$)/, '')} (${kind})`,
    ...rules
      .filter((rule) => rule.scheme !== undefined)
      .map((rule) => `${rule.isDecisive ? '*' : ''}${rule.rule}: ${rule.reason}`),
  ]);
}

describe('explainLayer', () => {
  it('says what every rule would have given', () => {
    expect(verdicts('model.layers.0.self_attn.q_proj')).toEqual([
      'self_attn.q_proj (linear)',
      '*rule 1: ignore q_proj: q_proj → ignored',
      'rule 9: everything else: everything else → wint8',
    ]);
    expect(verdicts('v_proj')).toEqual([
      'self_attn.v_proj (linear)',
      '*rule 3: targets *.v_proj: target *.v_proj → wint4',
      'rule 9: everything else: everything else → wint8',
    ]);
    expect(verdicts('re:.*mlp.gate$')).toEqual([
      'mlp.gate (router)',
      '*rule 2: ignore re:.*gate: re:.*gate → ignored',
      'rule 8: routers: routers → kept as stored by default',
      'rule 9: everything else: everything else → wint8',
    ]);
  });

  it('lists all rules, those about other layers too', () => {
    const [layer] = explainLayer(plan, 'q_proj');
    expect(layer?.rules.map(({ rule, scheme: given }) => `${rule} ${given ?? '-'}`)).toEqual([
      'rule 1: ignore q_proj none',
      'rule 2: ignore re:.*gate -',
      'rule 3: targets *.v_proj -',
      'rule 4: embeddings -',
      'rule 5: lm_head -',
      'rule 6: norms -',
      'rule 7: shared-expert gates -',
      'rule 8: routers -',
      'rule 9: everything else wint8',
    ]);
  });

  it('takes a fused name, and either name of a tied tensor', () => {
    expect(explainLayer(plan, 'qkv_proj').map(({ name }) => name.slice(-6))).toEqual([
      'q_proj',
      'k_proj',
      'v_proj',
    ]);
    const tied = makePlan({ graph: tiedGraph(), scheme, quantizeEmbeddings: true });
    expect(explainLayer(tied, 'lm_head')).toEqual(explainLayer(tied, 'model.embed_tokens'));
  });

  it('agrees with the plan', () => {
    const decided = [...plan.decisions.values()].flat();
    for (const { name, reason } of decided) {
      const [layer] = explainLayer(plan, name);
      const decisive = layer?.rules.findIndex(({ isDecisive }) => isDecisive) ?? -1;
      expect(`rule ${decisive + 1}: ${layer?.rules[decisive]?.reason}`).toBe(reason);
    }
  });

  it('names what is nearest to a name that does not exist', () => {
    expect(() => explainLayer(plan, 'model.layers.0.self_attn.w_proj')).toThrow(
      expect.objectContaining({
        code: 'pattern_matches_nothing',
        param: 'explain',
        suggestions: [expect.stringContaining('model.layers.0.self_attn.q_proj')],
      }),
    );
  });
});
