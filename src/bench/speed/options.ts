import type { QuantizationFlags } from '../../load/apply-quantization.js';
import type { DtypeChoice } from '../../load/arithmetic.js';
import type { LocateOptions } from '../../hub/locate.js';
import type { KvCacheType } from '../../quant/kv-cache-type.js';

/** What `fdq bench` is asked for: every combination of the lists is measured. */
export interface SpeedOptions {
  /** Folder or Hugging Face id. */
  readonly model: string;
  readonly locate: LocateOptions;
  readonly dtype: DtypeChoice;
  /** FDQ_ISA */
  readonly isa?: string | undefined;
  /** What holds for all schemes. */
  readonly quantization: Omit<QuantizationFlags, 'quantization' | 'kvCacheDtype'>;
  /** Scheme or precision names, or JSON objects as text; undefined: the weights as they are. */
  readonly schemes: readonly (string | undefined)[];
  readonly kvCacheDtypes: readonly KvCacheType[];
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

/** What is measured of a loaded model. */
export interface SpeedCase {
  readonly promptTokens: number;
  readonly steps: number;
  /** Tokens of each sequence in the cache before anything is measured. */
  readonly depth: number;
  /** Decoded together; the prompt is measured alone. */
  readonly sequences: number;
}
