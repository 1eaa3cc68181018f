import { describe, expect, it } from 'vitest';

import type { Attribute, Graph, GraphNode } from '../../../src/graph/ir.js';
import type { DecoderModel } from '../../../src/models/architecture.js';
import { buildModel } from '../../../src/models/build-model.js';
import type { CheckpointTensor } from '../../../src/models/checkpoint-weights.js';
import { sampleConfig, sampleTensors } from './sample-config.js';

type Changes = Readonly<Record<string, unknown>>;

async function build(architecture: string, changes: Changes = {}, dtype?: string): Promise<DecoderModel> {
  const config = sampleConfig(architecture, changes);
  return buildModel(config, await sampleTensors(config, dtype));
}

async function buildWith(edit: (tensors: Map<string, CheckpointTensor>) => void, changes: Changes = {}): Promise<DecoderModel> {
  const config = sampleConfig('LlamaForCausalLM', changes);
  const tensors = await sampleTensors(config);
  edit(tensors);
  return buildModel(config, tensors);
}

function change(tensors: Map<string, CheckpointTensor>, name: string, changes: Partial<CheckpointTensor>): void {
  tensors.set(name, { ...(tensors.get(name) as CheckpointTensor), ...changes });
}

function findNode(graph: Graph, name: string): GraphNode {
  const node = graph.nodes.find((candidate) => candidate.name === name);
  if (node === undefined) throw new Error(`no node ${name}`);
  return node;
}

function attributeOf(node: GraphNode, name: string): Attribute['value'] | undefined {
  return node.attributes[name]?.value;
}

function memberNames(graph: Graph, initializer: string): readonly string[] {
  const data = graph.initializers.get(initializer)?.data;
  return data?.kind === 'weight' ? data.members.map((member) => member.name) : [];
}

describe('graph of a decoder', () => {
  it('is, layer by layer, norm, attention, norm, MLP', async () => {
    const { graph } = await build('LlamaForCausalLM', { num_hidden_layers: 1 });
    expect(graph.nodes.map((node) => node.name)).toEqual([
      '/model/rotary_emb/RotaryTable',
      '/model/embed_tokens/Gather',
      '/model/embed_tokens/Cast',
      '/model/layers.0/input_layernorm/SimplifiedLayerNormalization',
      '/model/layers.0/self_attn/qkv_proj/Gemm',
      '/model/layers.0/self_attn/PagedAttention',
      '/model/logit_rows/Gather',
      '/model/layers.0/self_attn/o_proj/Gemm',
      '/model/logit_rows/Gather_1',
      '/model/layers.0/post_attention_layernorm/SkipSimplifiedLayerNormalization',
      '/model/layers.0/mlp/gate_up_proj/Gemm',
      '/model/layers.0/mlp/SwiGLU',
      '/model/layers.0/mlp/down_proj/Gemm',
      '/model/norm/SkipSimplifiedLayerNormalization',
      '/lm_head/Gemm',
    ]);
    expect(graph.outputs).toEqual([{ name: 'logits', dataType: 'float32', shape: ['rows', 64] }]);
    expect(graph.opsets).toEqual(new Map([['', 21], ['com.microsoft', 1], ['fdq', 1]]));
  });

  it('fuses q, k, v and gate, up in row order', async () => {
    const { graph } = await build('LlamaForCausalLM');
    const layer = 'model.layers.2';
    const attention = ['q', 'k', 'v'].map((part) => `${layer}.self_attn.${part}_proj.weight`);
    expect(memberNames(graph, `${layer}.self_attn.qkv_proj.weight`)).toEqual(attention);
    expect(graph.initializers.get(`${layer}.self_attn.qkv_proj.weight`)).toMatchObject({ dataType: 'bfloat16', shape: [64, 32] });
    const mlp = ['gate', 'up'].map((part) => `${layer}.mlp.${part}_proj.weight`);
    expect(memberNames(graph, `${layer}.mlp.gate_up_proj.weight`)).toEqual(mlp);
  });

  it('passes the residual stream on unnormed', async () => {
    const { graph } = await build('LlamaForCausalLM', { num_hidden_layers: 2 });
    const skip = 'SkipSimplifiedLayerNormalization';
    const first = findNode(graph, `/model/layers.0/post_attention_layernorm/${skip}`);
    const second = findNode(graph, `/model/layers.1/input_layernorm/${skip}`);
    expect(first.inputs[1]).toBe('/model/embed_tokens/Cast_output_0');
    expect(second.inputs.slice(0, 2)).toEqual(['/model/layers.0/mlp/down_proj/Gemm_output_0', first.outputs[3]]);
    expect(second.outputs.slice(1, 3)).toEqual(['', '']);
    expect(findNode(graph, `/model/norm/${skip}`).outputs).toHaveLength(1);
  });

  it('reads a tied head from the embedding, even when the checkpoint repeats it', async () => {
    const tied = await buildWith((tensors) => tensors.set('lm_head.weight', { ...(tensors.get('model.norm.weight') as CheckpointTensor) }), {
      tie_word_embeddings: true,
    });
    expect(findNode(tied.graph, '/lm_head/Gemm').inputs[1]).toBe('model.embed_tokens.weight');
    expect(tied.graph.initializers.has('lm_head.weight')).toBe(false);
    expect(tied.unusedTensors).toEqual([]);
    const untied = await build('LlamaForCausalLM');
    expect(findNode(untied.graph, '/lm_head/Gemm').inputs[1]).toBe('lm_head.weight');
  });

  it('needs no Cast for a float32 checkpoint', async () => {
    const { graph, info } = await build('LlamaForCausalLM', {}, 'F32');
    expect(graph.nodes.filter((node) => node.opType === 'Cast')).toEqual([]);
    expect(info.storedDataType).toBe('float32');
  });

  it('widens norms and biases, not matrices', async () => {
    const { graph } = await build('Qwen2ForCausalLM', {}, 'F16');
    const types = [...graph.initializers.values()].map(({ dataType, shape }) => `${dataType} ${shape.length}`);
    expect(new Set(types)).toEqual(new Set(['float16 2', 'float32 1']));
  });

  it('splits a fused group whose members are stored in different types', async () => {
    const { graph } = await buildWith((tensors) => {
      change(tensors, 'model.layers.0.self_attn.k_proj.weight', { dtype: 'F32' });
    }, { attention_bias: true });
    const module = '/model/layers.0/self_attn';
    const concat = findNode(graph, `${module}/qkv_proj/Concat`);
    expect(concat.inputs).toEqual(['q', 'k', 'v'].map((part) => `${module}/${part}_proj/Gemm_output_0`));
    expect(attributeOf(concat, 'axis')).toBe(-1);
    expect(findNode(graph, `${module}/k_proj/Gemm`).inputs.slice(1)).toEqual([
      'model.layers.0.self_attn.k_proj.weight',
      'model.layers.0.self_attn.k_proj.bias',
    ]);
    expect(graph.initializers.get('model.layers.0.self_attn.k_proj.weight')?.dataType).toBe('float32');
    expect(graph.values.get(concat.outputs[0] ?? '')?.shape).toEqual(['tokens', 64]);
    expect(findNode(graph, '/model/layers.1/self_attn/qkv_proj/Gemm').inputs).toHaveLength(3);
  });
});

describe('PagedAttention', () => {
  it('is told everything about the heads', async () => {
    const { graph } = await build('Qwen3ForCausalLM', {
      head_dim: 16,
      partial_rotary_factor: 0.5,
      rms_norm_eps: 1e-5,
      use_sliding_window: true,
      sliding_window: 24,
      max_window_layers: 1,
    });
    const node = findNode(graph, '/model/layers.1/self_attn/PagedAttention');
    expect(node.inputs).toEqual([
      '/model/layers.1/self_attn/qkv_proj/Gemm_output_0',
      '/model/rotary_emb/RotaryTable_output_0',
      'query_starts',
      'context_lengths',
      'block_tables',
      'model.layers.1.self_attn.q_norm.weight',
      'model.layers.1.self_attn.k_norm.weight',
    ]);
    const values = Object.fromEntries(Object.entries(node.attributes).map(([name, { value }]) => [name, value]));
    expect(values).toEqual({
      layer: 1,
      num_heads: 4,
      num_kv_heads: 2,
      head_dim: 16,
      scale: 0.25,
      window: 24,
      rotary_dim: 8,
      rotary_interleaved: 0,
      norm_epsilon: Math.fround(1e-5),
      compute: 'float32',
    });
    expect(attributeOf(findNode(graph, '/model/layers.0/self_attn/PagedAttention'), 'window')).toBe(0);
  });

  it('has no norms where the architecture has none', async () => {
    const { graph } = await build('LlamaForCausalLM');
    expect(findNode(graph, '/model/layers.0/self_attn/PagedAttention').inputs.slice(5)).toEqual(['', '']);
  });
});

describe('RotaryTable', () => {
  it('is told the dynamic base', async () => {
    const { graph } = await build('LlamaForCausalLM', { rope_theta: 5000, rope_scaling: { type: 'dynamic', factor: 2 } });
    const { attributes } = findNode(graph, '/model/rotary_emb/RotaryTable');
    expect(attributes).toMatchObject({ ntk_base: { value: 5000 }, ntk_factor: { value: 2 }, ntk_original: { value: 128 } });
  });

  it('is told the attention factor of yarn', async () => {
    const { graph } = await build('LlamaForCausalLM', { rope_scaling: { type: 'yarn', factor: 2, attention_factor: 1.5 } });
    const { attributes } = findNode(graph, '/model/rotary_emb/RotaryTable');
    expect(attributes).toMatchObject({ attention_factor: { value: 1.5 }, ntk_original: { value: 0 } });
  });
});

describe('info', () => {
  it('has the window only when no layer sees further', async () => {
    const window = { use_sliding_window: true, sliding_window: 24 };
    expect((await build('Qwen2ForCausalLM', { ...window, max_window_layers: 0 })).info.slidingWindow).toBe(24);
    expect((await build('Qwen2ForCausalLM', { ...window, max_window_layers: 1 })).info).not.toHaveProperty('slidingWindow');
  });
});

describe('tensors of a checkpoint', () => {
  const gate = 'model.layers.1.mlp.gate_proj.weight';

  it('lists what the architecture does not know, known leftovers aside', async () => {
    const model = await buildWith((tensors) => {
      const norm = tensors.get('model.norm.weight') as CheckpointTensor;
      for (const name of ['model.layers.0.self_attn.rotary_emb.inv_freq', 'model.extra.weight']) tensors.set(name, { ...norm, name });
    });
    expect(model.unusedTensors).toEqual(['model.extra.weight']);
  });

  it('are missed by name, with how many others', async () => {
    const one = buildWith((tensors) => tensors.delete(gate));
    await expect(one).rejects.toMatchObject({ code: 'invalid_checkpoint', param: gate });
    await expect(one).rejects.toThrow(/gate_proj\.weight" \[48, 32\] but the checkpoint does not have it\.$/);
    await expect(buildWith((tensors) => (tensors.delete(gate), tensors.delete('model.norm.weight')))).rejects.toThrow(/nor 1 others\.$/);
    await expect(buildWith((tensors) => tensors.clear())).rejects.toMatchObject({ param: 'model.embed_tokens.weight' });
  });

  it('need a head of their own unless tied', async () => {
    const error: unknown = await buildWith((tensors) => tensors.delete('lm_head.weight')).catch((caught: unknown) => caught);
    expect(error).toMatchObject({ code: 'invalid_checkpoint', param: 'lm_head.weight' });
    expect(JSON.stringify((error as { suggestions: unknown }).suggestions)).toContain('tie_word_embeddings');
  });

  it('must have the shapes config.json implies', async () => {
    const wrong = buildWith((tensors) => {
      change(tensors, gate, { shape: [32, 48] });
    });
    await expect(wrong).rejects.toMatchObject({ code: 'invalid_checkpoint', param: gate });
    await expect(wrong).rejects.toThrow(/shape \[48, 32\] but the checkpoint has \[32, 48\]/);
  });

  it('must be 16 or 32-bit floats', async () => {
    const wrong = buildWith((tensors) => {
      change(tensors, gate, { dtype: 'F8_E4M3' });
    });
    await expect(wrong).rejects.toMatchObject({ code: 'invalid_checkpoint', param: gate });
    await expect(wrong).rejects.toThrow(/BF16, F16, F32 but the checkpoint has F8_E4M3/);
  });
});
