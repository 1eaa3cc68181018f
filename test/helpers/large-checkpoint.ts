import { closeSync, mkdirSync, openSync, writeFileSync, writeSync } from 'node:fs';
import path from 'node:path';

const HIDDEN = 1024;
const INTERMEDIATE = 4096;
const VOCAB = 512;
const BF16_BYTES = 2;

/** A llama of 33 MiB a layer whose weights are small bfloat16 numbers; it has no tokenizer. */
export function writeLargeCheckpoint(dir: string, layers: number): void {
  mkdirSync(dir, { recursive: true });
  const config = {
    architectures: ['LlamaForCausalLM'],
    hidden_size: HIDDEN,
    intermediate_size: INTERMEDIATE,
    num_hidden_layers: layers,
    num_attention_heads: 8,
    num_key_value_heads: 8,
    vocab_size: VOCAB,
    max_position_embeddings: 2048,
    rms_norm_eps: 1e-5,
    rope_theta: 10000,
    tie_word_embeddings: true,
    torch_dtype: 'bfloat16',
  };
  writeFileSync(path.join(dir, 'config.json'), JSON.stringify(config));
  const shapes = Object.entries(shapesOf(layers));
  const header: Record<string, unknown> = {};
  let end = 0;
  for (const [name, shape] of shapes) {
    const bytes = shape.reduce((product, size) => product * size, BF16_BYTES);
    header[name] = { dtype: 'BF16', shape, data_offsets: [end, (end += bytes)] };
  }
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  const file = openSync(path.join(dir, 'model.safetensors'), 'w');
  writeSync(file, length);
  writeSync(file, text);
  const rows = new Uint16Array(1 << 19).map((_, i) => 0x3c00 + ((i * 40503) & 0x81ff));
  const chunk = new Uint8Array(rows.buffer);
  for (let done = 0; done < end; done += chunk.length) {
    writeSync(file, chunk, 0, Math.min(chunk.length, end - done));
  }
  closeSync(file);
}

function shapesOf(layers: number): Readonly<Record<string, readonly number[]>> {
  const shapes: Record<string, readonly number[]> = { 'model.embed_tokens.weight': [VOCAB, HIDDEN] };
  for (let layer = 0; layer < layers; layer++) {
    const prefix = `model.layers.${layer}`;
    for (const name of ['q_proj', 'k_proj', 'v_proj', 'o_proj']) {
      shapes[`${prefix}.self_attn.${name}.weight`] = [HIDDEN, HIDDEN];
    }
    shapes[`${prefix}.mlp.gate_proj.weight`] = [INTERMEDIATE, HIDDEN];
    shapes[`${prefix}.mlp.up_proj.weight`] = [INTERMEDIATE, HIDDEN];
    shapes[`${prefix}.mlp.down_proj.weight`] = [HIDDEN, INTERMEDIATE];
    shapes[`${prefix}.input_layernorm.weight`] = [HIDDEN];
    shapes[`${prefix}.post_attention_layernorm.weight`] = [HIDDEN];
  }
  return { ...shapes, 'model.norm.weight': [HIDDEN] };
}
