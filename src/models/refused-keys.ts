import type { ConfigReader } from './config-reader.js';

/**
 * Config keys of other model families that change the arithmetic of a decoder, with the values under which
 * they do not. A checkpoint that sets one of them would run here and answer nonsense.
 */
const NEUTRAL_VALUES: Readonly<Record<string, readonly unknown[]>> = {
  alibi: [false],
  attention_chunk_size: [],
  attention_multiplier: [],
  attention_sink_size: [0],
  attn_logit_softcapping: [0],
  attn_temperature_tuning: [false, 0],
  clip_qkv: [],
  cross_attention_layers: [],
  dim_model_base: [],
  embedding_multiplier: [1],
  final_logit_softcapping: [0],
  is_causal: [true],
  logit_scale: [1],
  logits_scaling: [1],
  logits_soft_cap: [0],
  mup_attn_multiplier: [1],
  mup_embedding_multiplier: [1],
  mup_width_multiplier: [1],
  n_routed_experts: [0],
  no_rope_layer_interval: [0],
  no_rope_layers: [],
  num_experts: [0],
  num_local_experts: [0],
  parallel_attn: [false],
  position_embedding_type: ['rope', 'rotary'],
  qk_layernorm: [false],
  qk_norm: [false],
  query_pre_attn_scalar: [],
  residual_multiplier: [1],
  rope_interleave: [false],
  rope_interleaved: [false],
  scale_depth: [],
  scale_emb: [1],
  use_alibi: [false],
  use_bidirectional_attention: [false],
  use_mrope: [false],
  use_parallel_residual: [false],
  use_qk_norm: [false],
};

/** @throws UnsupportedError `unsupported_model` naming the key and its value. */
export function refuseUnsupportedKeys(reader: ConfigReader): void {
  for (const [key, neutral] of Object.entries(NEUTRAL_VALUES)) {
    if (!reader.has(key) || neutral.includes(reader.get(key))) continue;
    const allowed = ['absent', ...neutral.map((value) => JSON.stringify(value))];
    throw reader.unsupported(key, allowed.join(' or '));
  }
}
