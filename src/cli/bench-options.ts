import os from 'node:os';
import { UserError } from '../errors.js';
import type { BENCH_MODEL_FLAGS, BENCH_QUANTIZATION_FLAGS, BENCH_SPEED_FLAGS } from './bench-flags.js';
import type { FlagRow, FlagValues } from './flag-row.js';
import { convertValue } from './flag-values.js';
import { MEMORY_FLAGS } from './flags.js';
import { quantizationOptions, type QuantizationOptions } from './quantization-options.js';

type SpeedFlags = FlagValues<
  typeof BENCH_MODEL_FLAGS & typeof BENCH_QUANTIZATION_FLAGS & typeof BENCH_SPEED_FLAGS
>;
type KvCacheDtype = (typeof MEMORY_FLAGS)['kv-cache-dtype']['options'][number];

/** What the flags of `fdq bench` say, checked one by one. */
export interface SpeedSettings {
  /** Folder or Hugging Face id. */
  readonly model: string;
  readonly locate: { readonly offline: boolean; readonly revision?: string };
  readonly dtype: SpeedFlags['dtype'];
  /** What holds for all schemes. */
  readonly quantization: Omit<QuantizationOptions, 'quantization'>;
  /** Scheme or precision names, or JSON objects as text; undefined: the weights as they are. */
  readonly schemes: readonly (string | undefined)[];
  readonly kvCacheDtypes: readonly KvCacheDtype[];
  readonly threads: readonly number[];
  /** -p; 0: no prompt speed. */
  readonly promptTokens: readonly number[];
  /** -n; 0: no decode speed. */
  readonly steps: readonly number[];
  /** -d */
  readonly depths: readonly number[];
  /** -b */
  readonly sequences: readonly number[];
  readonly repetitions: number;
  /** Tokens of one step; absent: as `fdq serve`. */
  readonly maxBatchedTokens?: number;
  /** Share of the machine's memory that may be used, (0, 1]. */
  readonly utilization: number;
}

const TOKENS = { kind: 'length', group: 'MEASUREMENT', summary: '', min: 0 } as const satisfies FlagRow;
const COUNT = { kind: 'integer', group: 'MEASUREMENT', summary: '', min: 1, max: 1024 } as const;
const AUTO = 'auto';

/** @throws UserError `usage` naming the flag */
export function toSpeedSettings(flags: SpeedFlags): SpeedSettings {
  const { model, revision, 'max-num-batched-tokens': batched, threads } = flags;
  const numbers = (name: string, row: FlagRow, items: readonly string[]): readonly number[] =>
    items.map((item) => convertValue(row, `--${name}`, item) as number);
  const { schemes, ...quantization } = sweptQuantization(flags);
  return {
    model: requireModel(model),
    locate: { offline: flags.offline ?? false, ...(revision === undefined ? {} : { revision }) },
    dtype: flags.dtype,
    quantization,
    schemes,
    kvCacheDtypes: flags['kv-cache-dtype'].map(
      (item) => convertValue(MEMORY_FLAGS['kv-cache-dtype'], '--kv-cache-dtype', item) as KvCacheDtype,
    ),
    threads: threads === undefined ? [os.availableParallelism()] : numbers('threads', COUNT, threads),
    promptTokens: numbers('n-prompt', TOKENS, flags['n-prompt']),
    steps: numbers('n-gen', TOKENS, flags['n-gen']),
    depths: numbers('n-depth', TOKENS, flags['n-depth']),
    sequences: numbers('batch-size', COUNT, flags['batch-size']),
    repetitions: flags.repetitions,
    ...(batched === undefined ? {} : { maxBatchedTokens: batched }),
    utilization: flags['gpu-memory-utilization'],
  };
}

/**
 * The schemes of `--quantization` and what holds for all of them; objects and @files are objects as text.
 * @throws UserError `usage`
 */
export function sweptQuantization(
  flags: FlagValues<typeof BENCH_QUANTIZATION_FLAGS>,
): Omit<QuantizationOptions, 'quantization'> & { readonly schemes: readonly (string | undefined)[] } {
  const { quantization: items = [], ...others } = flags;
  const schemes = items.map((item) => quantizationOptions({ ...others, quantization: item }).quantization);
  if (schemes.some((scheme) => scheme?.trim().toLowerCase() === AUTO)) throw refuseAuto();
  const { quantization: _, ...rest } = quantizationOptions({ ...others, quantization: undefined });
  return { ...rest, schemes: schemes.length === 0 ? [undefined] : schemes };
}

/** @throws UserError `usage` for none */
export function requireModel(model: string | undefined): string {
  if (model !== undefined && model !== '') return model;
  throw new UserError('usage', 'Expected a model: a folder or a Hugging Face id.', {
    param: 'model',
    suggestions: ['fdq bench ./my-model', 'fdq bench Qwen/Qwen3-0.6B --quantization wint8,wint4'],
  });
}

function refuseAuto(): UserError {
  return new UserError('usage', '--quantization auto chooses schemes and cannot be measured by itself.', {
    param: 'quantization',
    suggestions: [
      'Let it choose first: fdq inspect MODEL -q auto --max-weight-bytes 400MiB --save-quantization-config plan.json',
      'Then measure what it chose: --quantization @plan.json',
    ],
  });
}
