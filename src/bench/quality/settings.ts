import os from 'node:os';
import { requireModel, sweptQuantization } from '../../cli/bench-options.js';
import type { BENCH_QUALITY_FLAGS } from '../../cli/bench-quality-flags.js';
import type { FlagValues } from '../../cli/flag-row.js';
import { convertValue } from '../../cli/flag-values.js';
import { MEMORY_FLAGS } from '../../cli/flags.js';
import { UserError } from '../../errors.js';
import type { KvCacheType } from '../../quant/kv-cache-type.js';
import type { QualityOptions } from './options.js';

type Flags = FlagValues<typeof BENCH_QUALITY_FLAGS>;

const NONE = 'none';

/**
 * Checks what single flags cannot know.
 * @param isa FDQ_ISA
 * @throws UserError `usage`
 */
export function toQualityOptions(flags: Flags, isa: string | undefined): QualityOptions {
  const { tokenizer, 'chat-template': chatTemplate, text, prompts, 'max-prompts': maxPrompts } = flags;
  const { reference, 'reference-logits': referenceLogits, revision } = flags;
  if (reference === NONE && referenceLogits !== undefined) {
    throw refuse('--reference-logits', 'Expected --reference-logits or --reference none but received both.', [
      'Without a reference there are no logits to keep: leave one of them out.',
    ]);
  }
  const { schemes, ...quantization } = sweptQuantization(flags);
  return {
    model: requireModel(flags.model),
    locate: { offline: flags.offline ?? false, ...(revision === undefined ? {} : { revision }) },
    ...(tokenizer === undefined ? {} : { tokenizer }),
    ...(chatTemplate === undefined ? {} : { chatTemplate }),
    ...(reference === undefined ? {} : { reference: reference === NONE ? null : reference }),
    schemes: schemes.map((scheme) => ({
      ...quantization,
      ...(scheme === undefined ? {} : { quantization: scheme }),
    })),
    kvTypes: flags['kv-cache-dtype'].map(
      (item) => convertValue(MEMORY_FLAGS['kv-cache-dtype'], '--kv-cache-dtype', item) as KvCacheType,
    ),
    dtype: flags.dtype,
    threads: flags.threads ?? os.availableParallelism(),
    isa,
    utilization: flags['gpu-memory-utilization'],
    ...(text === undefined ? {} : { text }),
    windows: windowsOf(flags),
    ...(prompts === undefined ? {} : { prompts }),
    ...(maxPrompts === undefined ? {} : { maxPrompts }),
    maxTokens: flags['max-tokens'],
    maxNumSeqs: flags['max-num-seqs'],
    layers: flags.layers ?? false,
    ...(referenceLogits === undefined ? {} : { referenceLogits }),
    maxReferenceBytes: flags['max-reference-bytes'],
  };
}

function windowsOf(flags: Flags): QualityOptions['windows'] {
  const { window, stride = window, 'max-windows': maxWindows } = flags;
  if (stride > window) {
    throw refuse('--stride', `Expected --stride to be at most --window (${window}) but received ${stride}.`, [
      'A longer stride would leave tokens of the text out.',
    ]);
  }
  return { window, stride, ...(maxWindows === undefined ? {} : { maxWindows }) };
}

function refuse(param: string, message: string, suggestions: readonly string[]): UserError {
  return new UserError('usage', message, { param, suggestions });
}
