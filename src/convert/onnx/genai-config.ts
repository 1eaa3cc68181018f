import type { DecoderInfo } from '../../models/architecture.js';

type Json = Readonly<Record<string, unknown>>;

/** Model types of onnxruntime-genai that are decoders with the inputs `lowerGraph` gives. */
const TYPES: ReadonlyMap<string, string> = new Map([
  ['LlamaForCausalLM', 'llama'],
  ['MistralForCausalLM', 'mistral'],
  ['Qwen2ForCausalLM', 'qwen2'],
  ['Qwen3ForCausalLM', 'qwen3'],
]);

/**
 * genai_config.json of onnxruntime-genai (its src/config.h says what the keys mean).
 * @returns undefined for an architecture it has no type for
 */
export function describeForGenai(
  decoder: DecoderInfo,
  config: Json,
  generation: Json | undefined,
): Json | undefined {
  const type = TYPES.get(decoder.architecture);
  if (type === undefined) return undefined;
  const eos = generation?.['eos_token_id'] ?? config['eos_token_id'];
  const [firstEos] = Array.isArray(eos) ? (eos as readonly unknown[]) : [eos];
  return {
    model: {
      bos_token_id: generation?.['bos_token_id'] ?? config['bos_token_id'] ?? firstEos,
      context_length: decoder.maxPositions,
      decoder: {
        session_options: { log_id: 'onnxruntime-genai', provider_options: [] },
        filename: 'model.onnx',
        head_size: decoder.headDim,
        hidden_size: decoder.hiddenSize,
        inputs: {
          input_ids: 'input_ids',
          attention_mask: 'attention_mask',
          past_key_names: 'past_key_values.%d.key',
          past_value_names: 'past_key_values.%d.value',
        },
        outputs: {
          logits: 'logits',
          present_key_names: 'present.%d.key',
          present_value_names: 'present.%d.value',
        },
        num_attention_heads: decoder.numHeads,
        num_hidden_layers: decoder.numLayers,
        num_key_value_heads: decoder.numKvHeads,
      },
      eos_token_id: eos,
      pad_token_id: generation?.['pad_token_id'] ?? config['pad_token_id'] ?? firstEos,
      type,
      vocab_size: decoder.vocabSize,
    },
    search: describeSearch(decoder, generation ?? {}),
  };
}

function describeSearch(decoder: DecoderInfo, generation: Json): Json {
  const number = (key: string, fallback: number): number => {
    const value = generation[key];
    return typeof value === 'number' ? value : fallback;
  };
  return {
    do_sample: generation['do_sample'] === true,
    max_length: decoder.maxPositions,
    min_length: 0,
    num_beams: 1,
    num_return_sequences: 1,
    past_present_share_buffer: false,
    repetition_penalty: number('repetition_penalty', 1),
    temperature: number('temperature', 1),
    top_k: number('top_k', 50),
    top_p: number('top_p', 1),
  };
}
