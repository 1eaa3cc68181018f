import { describe, expect, it } from 'vitest';

import { FdqError, UnsupportedError } from '../../../src/errors.js';
import type { ModelConfig } from '../../../src/models/architecture.js';
import { architectureNames, loadArchitecture } from '../../../src/models/registry.js';
import { sampleConfig } from './sample-config.js';

type Changes = Readonly<Record<string, unknown>>;

async function parse(architecture: string, changes: Changes = {}): Promise<ModelConfig> {
  const config = sampleConfig(architecture, changes);
  return (await loadArchitecture(config)).parseConfig(config);
}

async function refusalOf(architecture: string, changes: Changes): Promise<FdqError> {
  const error: unknown = await parse(architecture, changes).catch((caught: unknown) => caught);
  if (!(error instanceof FdqError)) throw new Error(`nothing was refused: ${JSON.stringify(error)}`);
  return error;
}

describe('loadArchitecture', () => {
  it('names what is supported', async () => {
    const error: unknown = await loadArchitecture({ architectures: ['LamaForCausalLM'] }).catch((caught: unknown) => caught);
    expect(error).toBeInstanceOf(UnsupportedError);
    expect(error).toMatchObject({ code: 'unsupported_architecture', message: expect.stringContaining('LamaForCausalLM') as string });
    const { suggestions } = error as UnsupportedError;
    expect(suggestions.join()).toContain(architectureNames.join(', '));
    // The nearest name of GPT2LMHeadModel would be that of a model with other mathematics.
    expect(suggestions.join()).not.toContain('nearest');
  });

  for (const architectures of [undefined, [], 'LlamaForCausalLM', [7], ['constructor']]) {
    it(`refuses architectures ${JSON.stringify(architectures)}`, async () => {
      await expect(loadArchitecture({ architectures })).rejects.toMatchObject({ code: 'unsupported_architecture' });
    });
  }
});

describe.each(architectureNames)('config of %s', (architecture) => {
  it('derives what is absent as transformers does', async () => {
    const config = await parse(architecture, { num_key_value_heads: null, head_dim: undefined, rms_norm_eps: undefined });
    expect(config).toMatchObject({ architecture, numKvHeads: 4, normEpsilon: 1e-6, tiedEmbeddings: false });
    expect(config.headDim).toBe(architecture === 'Qwen3ForCausalLM' ? 128 : 8);
  });

  const invalid: [string, unknown][] = [
    ['hidden_size', 0],
    ['hidden_size', undefined],
    ['hidden_size', 2 ** 53],
    ['intermediate_size', '48'],
    ['num_hidden_layers', 1.5],
    ['num_hidden_layers', 1_000_000],
    ['num_attention_heads', -4],
    ['num_key_value_heads', 3],
    ['head_dim', 7],
    ['vocab_size', NaN],
    ['max_position_embeddings', 2 ** 40],
    ['rms_norm_eps', 0],
    ['tie_word_embeddings', 'yes'],
  ];
  it.each(invalid)('refuses %s %j as invalid', async (key, value) => {
    const error = await refusalOf(architecture, { [key]: value });
    expect(error.code).toBe('invalid_checkpoint');
    expect(error.param).toBe(key === 'head_dim' ? 'partial_rotary_factor' : key);
  });

  const unsupported: [string, unknown][] = [
    ['hidden_act', 'gelu'],
    ['clip_qkv', 8],
    ['final_logit_softcapping', 30],
    ['attn_logit_softcapping', 50],
    ['embedding_multiplier', 12],
    ['num_local_experts', 8],
    ['position_embedding_type', 'alibi'],
    ['is_causal', false],
  ];
  it.each(unsupported)('refuses %s %j by name', async (key, value) => {
    const error = await refusalOf(architecture, { [key]: value });
    expect(error).toBeInstanceOf(UnsupportedError);
    expect(error).toMatchObject({ code: 'unsupported_model', param: key });
    expect(error.message).toContain(key);
  });

  it('accepts keys of other families at their neutral values', async () => {
    const neutral = { clip_qkv: null, embedding_multiplier: 1, num_experts: 0, is_causal: true, hidden_act: 'swish', pretraining_tp: 2 };
    await expect(parse(architecture, neutral)).resolves.toMatchObject({ architecture });
  });
});

describe('head_dim', () => {
  it('must be derivable', async () => {
    const error = await refusalOf('LlamaForCausalLM', { head_dim: null, num_attention_heads: 3, num_key_value_heads: 3 });
    expect(error.message).toMatch(/hidden_size .* multiple of num_attention_heads, 3/);
  });
});

describe('sliding windows', () => {
  it('cover every layer of Mistral unless null', async () => {
    expect((await parse('MistralForCausalLM', { sliding_window: 16 })).windows).toEqual([16, 16, 16]);
    expect((await parse('MistralForCausalLM', { sliding_window: null })).windows).toEqual([0, 0, 0]);
    expect((await parse('MistralForCausalLM')).windows).toEqual([4096, 4096, 4096]);
  });

  it('are not part of Llama', async () => {
    expect((await parse('LlamaForCausalLM', { sliding_window: 16 })).windows).toEqual([0, 0, 0]);
  });

  const window = { use_sliding_window: true, sliding_window: 16 };
  const full = 'full_attention';
  const sliding = 'sliding_attention';
  const cases: [string, Changes, readonly number[]][] = [
    ['are off by default', { sliding_window: 16, max_window_layers: 0 }, [0, 0, 0]],
    ['start at max_window_layers', { ...window, max_window_layers: 1 }, [0, 16, 16]],
    ['may start at layer 0', { ...window, max_window_layers: 0 }, [16, 16, 16]],
    ['start at layer 28 by default', window, [0, 0, 0]],
    ['are 4096 by default', { use_sliding_window: true, max_window_layers: 2 }, [0, 0, 4096]],
    ['are off when null', { use_sliding_window: true, sliding_window: null, max_window_layers: 0 }, [0, 0, 0]],
    ['follow layer_types', { ...window, max_window_layers: 0, layer_types: [sliding, full, sliding] }, [16, 0, 16]],
    ['may be off in all layer_types', { layer_types: [full, full, full] }, [0, 0, 0]],
  ];
  describe.each(['Qwen2ForCausalLM', 'Qwen3ForCausalLM'])('of %s', (architecture) => {
    it.each(cases)('%s', async (_, changes, windows) => {
      expect((await parse(architecture, changes)).windows).toEqual(windows);
    });
  });

  const refused: [string, Changes, FdqError['code']][] = [
    ['Qwen3ForCausalLM', { layer_types: [full, full] }, 'invalid_checkpoint'],
    ['Qwen3ForCausalLM', { layer_types: full }, 'invalid_checkpoint'],
    ['Qwen3ForCausalLM', { layer_types: [full, full, 'linear_attention'] }, 'unsupported_model'],
    ['Qwen3ForCausalLM', { layer_types: [full, full, sliding] }, 'invalid_checkpoint'],
    ['LlamaForCausalLM', { layer_types: [full, full, sliding] }, 'unsupported_model'],
    ['MistralForCausalLM', { sliding_window: 16, layer_types: [full, sliding, sliding] }, 'unsupported_model'],
  ];
  it.each(refused)('of %s refuse %j', async (architecture, changes, code) => {
    await expect(refusalOf(architecture, changes)).resolves.toMatchObject({ code });
  });
});

describe('biases', () => {
  const refused: [string, string][] = [
    ['MistralForCausalLM', 'attention_bias'],
    ['MistralForCausalLM', 'mlp_bias'],
    ['Qwen2ForCausalLM', 'mlp_bias'],
    ['Qwen3ForCausalLM', 'mlp_bias'],
  ];
  it.each(refused)('%s has no %s', async (architecture, key) => {
    await expect(refusalOf(architecture, { [key]: true })).resolves.toMatchObject({ code: 'unsupported_model', param: key });
    await expect(parse(architecture, { [key]: false })).resolves.toMatchObject({ architecture });
  });
});
