import type { LocateOptions } from '../../hub/locate.js';
import type { QuantizationFlags } from '../../load/apply-quantization.js';
import type { DtypeChoice } from '../../load/arithmetic.js';
import type { KvCacheType } from '../../quant/kv-cache-type.js';
import type { KnownInputs } from './left-out.js';
import type { WindowOptions } from './windows.js';

/** Everything `fdq bench quality` needs to know. */
export interface QualityOptions {
  /** Folder, or Hugging Face id with an optional `@revision`. */
  readonly model: string;
  readonly locate: LocateOptions;
  /** Folder; absent: the model's own. */
  readonly tokenizer?: string;
  /** File or template text; absent: the model's own. */
  readonly chatTemplate?: string;
  /** Unquantized checkpoint that is diverged from; absent: the model, unquantized; null: none. */
  readonly reference?: string | null;
  /** One scenario each, for every one of `kvTypes`. */
  readonly schemes: readonly QuantizationFlags[];
  readonly kvTypes: readonly KvCacheType[];
  readonly dtype: DtypeChoice;
  readonly threads: number;
  /** FDQ_ISA */
  readonly isa?: string | undefined;
  /** Share of the available memory that may be used. */
  readonly utilization: number;
  /** UTF-8 file that is scored. */
  readonly text?: string;
  readonly windows: WindowOptions;
  /** File of prompts, one JSON object a line. */
  readonly prompts?: string;
  /** Prompts that are asked, from the beginning of the file; absent: all. */
  readonly maxPrompts?: number;
  /** Longest answer, in tokens. */
  readonly maxTokens: number;
  /** Prompts answered together. */
  readonly maxNumSeqs: number;
  /** Measure what quantizing loses of each layer. */
  readonly layers: boolean;
  /** File that keeps the reference's logits. */
  readonly referenceLogits?: string;
  /** Most bytes that file may take. */
  readonly maxReferenceBytes: number;
}

export type QualityStage = 'plan' | 'reference' | 'layers' | 'load' | 'score' | 'answer';

/** Told how measuring goes. */
export interface QualityObserver {
  /** Progress may come at any rate. */
  stage(name: QualityStage, state: 'start' | 'progress' | 'done' | 'skipped', message?: string): void;
  /** Names of the scenarios and what they are measured on, before a weight is read; what it throws ends the run. */
  planned?(names: readonly string[], inputs: KnownInputs): void;
}
