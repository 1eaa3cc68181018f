import { describe, expect, it } from 'vitest';
import type { Graph, GraphNode, QuantizedLayer } from '../../../src/graph/ir.js';
import { memberSlices } from '../../../src/quant/packed-layout.js';
import { makePlan } from '../../../src/quant/plan.js';
import { resolveScheme } from '../../../src/quant/registry.js';
import { quantizeGraph } from '../../../src/quant/rewrite.js';
import { addGemm, QKV, source, startGraph, K } from './float-graph.js';
import { initializer, quantize } from './rewrite-fixture.js';

const ATTENTION = 'model.layers.0.self_attn';

function qkvGraph(): Graph {
  const builder = startGraph();
  builder.output(addGemm(builder, QKV));
  return builder.build();
}

function layerOf(graph: Graph, name: string): QuantizedLayer {
  const { data } = initializer(graph, name);
  if (data.kind !== 'quantized') throw new Error(`${name} is ${data.kind}`);
  return data.layer;
}

describe('a fused layer whose members agree', () => {
  const { graph, layers } = quantize(qkvGraph(), 'wint4:g32');
  const module = `${ATTENTION}.qkv_proj`;

  it('becomes one QuantLinear', () => {
    expect(graph.nodes).toEqual([
      {
        name: '/model/layers.0/self_attn/qkv_proj/QuantLinear',
        domain: 'fdq',
        opType: 'QuantLinear',
        inputs: ['x', `${module}.weight`, `${module}.weight.scales`, `${module}.bias`],
        outputs: ['/model/layers.0/self_attn/qkv_proj/Gemm_output_0'],
        attributes: {
          format: { type: 'string', value: 'int4' },
          k: { type: 'int', value: K },
          rows: { type: 'ints', value: [32, 16, 16] },
          group_n: { type: 'int', value: 1 },
          group_k: { type: 'int', value: 32 },
          block_k: { type: 'int', value: 0 },
          block_type: { type: 'string', value: '' },
          activation: { type: 'string', value: 'none' },
          activation_scale: { type: 'float', value: 0 },
          compute: { type: 'string', value: 'float32' },
        },
      },
    ]);
    expect(graph.opsets.get('fdq')).toBe(1);
  });

  it('reads parts that know their members and are made together', () => {
    expect(initializer(graph, `${module}.weight`)).toMatchObject({ dataType: 'int4', shape: [4, 16, 64] });
    expect(initializer(graph, `${module}.weight.scales`)).toMatchObject({
      dataType: 'float32',
      shape: [4, 1, 16],
    });
    const layer = layerOf(graph, `${module}.weight`);
    expect(layer).toEqual({ node: graph.nodes[0]?.name, scheme: 'wint4:g32', members: QKV.members });
    expect(layerOf(graph, `${module}.weight.scales`)).toBe(layer);
    expect(graph.initializers.size).toBe(3);
  });

  it('is reported by its unfused members', () => {
    expect(layers[1]).toEqual({
      name: `${ATTENTION}.k_proj`,
      tensor: `${ATTENTION}.k_proj.weight`,
      node: '/model/layers.0/self_attn/qkv_proj/QuantLinear',
      shape: [16, K],
      storedType: 'bfloat16',
      scheme: 'wint4:g32',
      reason: 'rule 6: everything else → wint4:g32',
      bytesBefore: 16 * K * 2,
      bytesAfter: 16 * 32 + 16 * 4,
    });
    const bytes = layers.reduce((sum, { bytesAfter }) => sum + bytesAfter, 0);
    const slices = memberSlices([32, 16, 16], K, { format: 'int4', groupN: 1, groupK: 32 });
    expect(bytes).toBe(
      slices.reduce((sum, { weightBytes, scaleCount }) => sum + weightBytes + 4 * scaleCount, 0),
    );
  });
});

it('passes the scheme, its groups and the arithmetic on', () => {
  const graph = qkvGraph();
  const plan = makePlan({ graph, scheme: resolveScheme('block_wise_fp8') });
  const rewritten = quantizeGraph(graph, plan, { compute: 'bfloat16' }).graph;
  const { attributes } = rewritten.nodes[0] as GraphNode;
  const values = Object.fromEntries(Object.entries(attributes).map(([key, { value }]) => [key, value]));
  expect(values).toEqual({
    format: 'e4m3',
    k: K,
    rows: [32, 16, 16],
    group_n: 128,
    group_k: 128,
    block_k: 0,
    block_type: '',
    activation: 'e4m3_group128',
    activation_scale: 0,
    compute: 'bfloat16',
  });
  const weight = initializer(rewritten, `${ATTENTION}.qkv_proj.weight`);
  expect(weight).toMatchObject({ dataType: 'float8e4m3fn', shape: [4, 32, 32] });
  expect(initializer(rewritten, `${ATTENTION}.qkv_proj.weight.scales`).shape).toEqual([3, 1]);
});

describe('the matrices that a tensor scale is found of', () => {
  const module = `${ATTENTION}.qkv_proj`;

  it('are all of a fused layer in nvfp4, whatever became of the others', () => {
    const whole = quantize(qkvGraph(), 'nvfp4').graph;
    expect(layerOf(whole, `${module}.weight.scales`).scaleGroup).toEqual(QKV.members);
    const { graph } = quantize(qkvGraph(), 'nvfp4', ['k_proj']);
    for (const part of ['q_proj', 'v_proj']) {
      expect(layerOf(graph, `${ATTENTION}.${part}.weight`).scaleGroup).toEqual(QKV.members);
    }
  });

  it('are not named in other schemes, and where a layer is one matrix', () => {
    for (const scheme of ['wint4:g32', 'mxfp4', 'fp8_per_tensor', 'block_wise_fp8']) {
      const { graph } = quantize(qkvGraph(), scheme);
      expect(layerOf(graph, `${module}.weight`)).not.toHaveProperty('scaleGroup');
    }
    const builder = startGraph();
    builder.output(addGemm(builder, { module, members: QKV.members.slice(0, 1) }));
    const { graph } = quantize(builder.build(), 'nvfp4');
    expect(layerOf(graph, `${module}.weight`)).not.toHaveProperty('scaleGroup');
  });
});

describe('a fused layer whose members differ', () => {
  const folder = '/model/layers.0/self_attn/qkv_proj';

  it('is split into runs and put together again', () => {
    const { graph, layers } = quantize(qkvGraph(), 'wint8', ['v_proj']);
    expect(graph.nodes.map(({ name, opType }) => `${opType} ${name}`)).toEqual([
      `QuantLinear ${folder}/q_proj+k_proj/QuantLinear`,
      `QuantLinear ${folder}/v_proj/QuantLinear`,
      `Concat ${folder}/Concat`,
    ]);
    const [first, second, concat] = graph.nodes;
    expect(first?.inputs).toEqual([
      'x',
      `${ATTENTION}.q_proj+k_proj.weight`,
      `${ATTENTION}.q_proj+k_proj.weight.scales`,
      `${ATTENTION}.q_proj+k_proj.bias`,
    ]);
    expect(first?.attributes['rows']).toEqual({ type: 'ints', value: [32, 16] });
    expect(second?.inputs).toEqual(['x', `${ATTENTION}.v_proj.weight`, '', `${ATTENTION}.v_proj.bias`]);
    expect(second?.attributes).toMatchObject({
      format: { value: 'bfloat16' },
      rows: { value: [16] },
      group_k: { value: 0 },
    });
    expect(concat).toMatchObject({
      inputs: [first?.outputs[0], second?.outputs[0]],
      outputs: [`${folder}/Gemm_output_0`],
      attributes: { axis: { type: 'int', value: 1 } },
    });
    expect(graph.values.get(first?.outputs[0] as string)).toEqual({
      name: first?.outputs[0],
      dataType: 'float32',
      shape: ['tokens', 48],
    });
    expect(layers.map(({ scheme, node }) => `${scheme} ${node}`)).toEqual([
      `wint8 ${folder}/q_proj+k_proj/QuantLinear`,
      `wint8 ${folder}/q_proj+k_proj/QuantLinear`,
      `none ${folder}/v_proj/QuantLinear`,
    ]);
    expect(layers[2]).toMatchObject({ bytesBefore: 16 * K * 2, bytesAfter: 16 * K * 2 });
  });

  it('takes its weights and biases from the members', () => {
    const { graph } = quantize(qkvGraph(), 'wint8', ['k_proj']);
    expect([...graph.initializers.keys()].sort()).toEqual(
      [
        'q_proj.bias',
        'q_proj.weight',
        'q_proj.weight.scales',
        'k_proj.bias',
        'k_proj.weight',
        'v_proj.bias',
        'v_proj.weight',
        'v_proj.weight.scales',
      ]
        .map((name) => `${ATTENTION}.${name}`)
        .sort(),
    );
    expect(initializer(graph, `${ATTENTION}.k_proj.weight`)).toEqual({
      name: `${ATTENTION}.k_proj.weight`,
      dataType: 'bfloat16',
      shape: [16, K],
      data: { kind: 'weight', members: [QKV.members[1]] },
    });
    expect(initializer(graph, `${ATTENTION}.v_proj.bias`)).toEqual({
      name: `${ATTENTION}.v_proj.bias`,
      dataType: 'float32',
      shape: [16],
      data: { kind: 'weight', members: [QKV.bias?.[2]] },
    });
    expect(layerOf(graph, `${ATTENTION}.v_proj.weight`).members).toEqual([QKV.members[2]]);
  });

  it('needs no bias, no shape of its output and no path in its name', () => {
    const graph = qkvGraph();
    const [node] = graph.nodes as [GraphNode];
    const renamed = { ...node, name: 'linear', outputs: ['y'], inputs: node.inputs.slice(0, 2) };
    const bare: Graph = {
      ...graph,
      nodes: [renamed],
      values: new Map(),
      outputs: [{ name: 'z', dataType: 'float32', shape: [] }],
    };
    const identity: GraphNode = {
      name: 'last',
      domain: '',
      opType: 'Identity',
      inputs: ['y'],
      outputs: ['z'],
      attributes: {},
    };
    const { graph: rewritten } = quantize({ ...bare, nodes: [renamed, identity] }, 'wint8', ['v_proj']);
    expect(rewritten.nodes.map(({ name }) => name)).toEqual([
      'linear/q_proj+k_proj/QuantLinear',
      'linear/v_proj/QuantLinear',
      'linear/Concat',
      'last',
    ]);
    expect(rewritten.nodes[0]?.inputs[3]).toBe('');
    expect(rewritten.values.size).toBe(0);
  });
});

describe('a weight that several nodes read', () => {
  function sharedGraph(): Graph {
    const builder = startGraph();
    const first = addGemm(builder, { module: 'a', members: [source('a.weight', [16, K])] });
    const gemm = (module: string): string =>
      builder.scope(module).value({
        opType: 'Gemm',
        inputs: ['x', 'a.weight'],
        output: { dataType: 'float32', shape: ['tokens', 16] },
        attributes: { transB: { type: 'int', value: 1 } },
      });
    for (const output of [first, gemm('b'), gemm('lm_head')]) builder.output(output);
    return builder.build();
  }

  it('is quantized once for equal decisions and kept for those that need it as stored', () => {
    const { graph } = quantize(sharedGraph(), 'wint8');
    const inputs = graph.nodes.map((node) => node.inputs.slice(1, 3).join());
    expect(inputs).toEqual([
      'a.weight.wint8,a.weight.wint8.scales',
      'a.weight.wint8,a.weight.wint8.scales',
      'a.weight,',
    ]);
    expect(layerOf(graph, 'a.weight.wint8').node).toBe('/a/QuantLinear');
    expect(initializer(graph, 'a.weight').data.kind).toBe('weight');
    expect(graph.initializers.size).toBe(3);
  });

  it('keeps its name when only one form of it is left', () => {
    const graph = sharedGraph();
    const wint8 = resolveScheme('wint8');
    const decisions = graph.nodes.map(
      ({ name }) => [name, [{ name: 'a', kind: 'linear', scheme: wint8, reason: '' } as const]] as const,
    );
    const rewritten = quantizeGraph(graph, { decisions: new Map(decisions) }, { compute: 'float32' }).graph;
    expect([...rewritten.initializers.keys()]).toEqual(['a.weight', 'a.weight.scales']);
    expect(rewritten.nodes.map((node) => node.inputs[1])).toEqual(['a.weight', 'a.weight', 'a.weight']);
  });

  it('finds another name as long as names are taken', () => {
    const graph = sharedGraph();
    const taken = ['a.weight.wint8.scales', 'a.weight.wint8_1'].map(
      (name) => [name, { ...initializer(graph, 'a.weight'), name }] as const,
    );
    const user: GraphNode = {
      name: 'user',
      domain: '',
      opType: 'Identity',
      inputs: taken.map(([name]) => name),
      outputs: ['u'],
      attributes: {},
    };
    const crowded = {
      ...graph,
      nodes: [...graph.nodes, user],
      initializers: new Map([...graph.initializers, ...taken]),
    };
    const { graph: rewritten } = quantize(crowded, 'wint8');
    expect(rewritten.nodes[0]?.inputs[1]).toBe('a.weight.wint8_2');
  });

  it('is told apart from a part of a fused layer with the same name', () => {
    const builder = startGraph();
    const name = `${ATTENTION}.v_proj`;
    builder.output(addGemm(builder, QKV));
    builder.output(addGemm(builder, { module: name, members: [source(`${name}.weight`, [16, K])] }));
    const { graph } = quantize(builder.build(), 'wint8', ['q_proj', 'k_proj']);
    const weights = graph.nodes
      .filter(({ opType }) => opType === 'QuantLinear')
      .map(({ inputs }) => inputs[1]);
    expect(weights).toEqual([`${ATTENTION}.q_proj+k_proj.weight`, `${name}.weight`, `${name}.weight.wint8`]);
  });
});

it('refuses a plan of another graph', () => {
  const plan = makePlan({ graph: startGraph().build(), scheme: resolveScheme('wint8') });
  expect(() => quantizeGraph(qkvGraph(), plan, { compute: 'float32' })).toThrow(
    expect.objectContaining({ code: 'internal' }),
  );
});

it('keeps the version of fdq a graph already names', () => {
  const graph = qkvGraph();
  const versioned = { ...graph, opsets: new Map([...graph.opsets, ['fdq', 7]]) };
  expect(quantize(versioned, 'wint8').graph.opsets.get('fdq')).toBe(7);
});
