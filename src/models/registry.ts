import { UnsupportedError } from '../errors.js';

import type { Architecture } from './architecture.js';

/** Hugging Face class name → its module, loaded when first wanted. */
const ARCHITECTURES: ReadonlyMap<string, () => Promise<Architecture>> = new Map([
  ['LlamaForCausalLM', async () => (await import('./llama.js')).llama],
  ['MistralForCausalLM', async () => (await import('./mistral.js')).mistral],
  ['Qwen2ForCausalLM', async () => (await import('./qwen2.js')).qwen2],
  ['Qwen3ForCausalLM', async () => (await import('./qwen3.js')).qwen3],
] as const);

export const architectureNames: readonly string[] = [...ARCHITECTURES.keys()];

/**
 * The architecture that config.json names.
 * @throws UnsupportedError `unsupported_architecture` naming those that are supported.
 */
export async function loadArchitecture(config: Readonly<Record<string, unknown>>): Promise<Architecture> {
  const named: unknown = config['architectures'];
  const name: unknown = Array.isArray(named) ? named[0] : undefined;
  const load = typeof name === 'string' ? ARCHITECTURES.get(name) : undefined;
  if (load !== undefined) return load();
  const supported = `Supported architectures: ${architectureNames.join(', ')}.`;
  if (typeof name !== 'string') {
    throw new UnsupportedError('unsupported_architecture', 'config.json names no architecture under "architectures".', {
      param: 'architectures',
      suggestions: [supported, 'Give a Hugging Face checkpoint of a causal language model.'],
    });
  }
  throw new UnsupportedError('unsupported_architecture', `Expected a supported architecture but config.json says "${name}".`, {
    param: 'architectures',
    suggestions: [supported, 'Give a checkpoint of one of these.'],
  });
}
