import { loadArchitecture } from '../models/registry.js';

type JsonObject = Readonly<Record<string, unknown>>;

/** Keys that describe a checkpoint or its training, or that matter only beside others. */
const NEVER_READ = new Set([
  '_attn_implementation',
  '_attn_implementation_autoset',
  '_name_or_path',
  'architectures',
  'attention_dropout',
  'auto_map',
  'bos_token_id',
  'decoder_start_token_id',
  'dtype',
  'embd_pdrop',
  'eos_token_id',
  'finetuning_task',
  'gradient_checkpointing',
  'hidden_dropout',
  'hidden_dropout_prob',
  'id2label',
  'initializer_range',
  'is_decoder',
  'is_encoder_decoder',
  'label2id',
  'layer_types',
  'max_window_layers',
  'mlp_dropout',
  'model_type',
  'name_or_path',
  'output_attentions',
  'output_hidden_states',
  'pad_token_id',
  'pretraining_tp',
  'problem_type',
  'resid_pdrop',
  'return_dict',
  'rope_scaling',
  'rope_theta',
  'sliding_window',
  'task_specific_params',
  'tokenizer_class',
  'torch_dtype',
  'transformers_version',
  'unsloth_fixed',
  'use_cache',
  'use_return_dict',
  'use_sliding_window',
]);

/** Keys of config.json that its architecture never looks at: they may mean something that is not computed here. */
export async function findUnknownKeys(config: JsonObject): Promise<readonly string[]> {
  const asked = new Set<PropertyKey>();
  const watched = new Proxy(config, {
    get: (target, key) => {
      asked.add(key);
      return Reflect.get(target, key) as unknown;
    },
    getOwnPropertyDescriptor: (target, key) => {
      asked.add(key);
      return Reflect.getOwnPropertyDescriptor(target, key);
    },
    // Listing all keys is no interest in any of them.
    ownKeys: (target) => Reflect.ownKeys(target),
  });
  const architecture = await loadArchitecture(config);
  architecture.parseConfig(watched);
  return Object.keys(config).filter((key) => !asked.has(key) && !NEVER_READ.has(key));
}
