import type { LoadOptions } from '../load/load-model.js';
import type { Graph } from '../graph/ir.js';
import type { CheckpointPlan, Destination } from '../load/plan.js';
import type { Runtime } from '../runtime/load-addon.js';

/** What a writer is given: a model whose every layer is decided, and an empty folder. */
export interface ConvertJob {
  readonly plan: CheckpointPlan;
  readonly runtime: Runtime;
  readonly threads: number;
  /** Absolute; the writer puts its files directly into it, and only whole folders ever reach the target. */
  readonly dir: string;
  /** Bytes of weights written so far, and of how many. */
  readonly onProgress: (doneBytes: number, totalBytes: number) => void;
  readonly signal: AbortSignal;
}

export interface WriteReport {
  /** Bytes of all weights written, padding included. */
  readonly weightBytes: number;
}

/** A written folder that is to be compared with what serving the checkpoint gives. */
export interface VerifyJob {
  readonly plan: CheckpointPlan;
  /** Loads the checkpoint as `fdq serve` would. */
  readonly load: LoadOptions;
  readonly dir: string;
  readonly signal: AbortSignal;
}

/** One `--format`. */
export interface FormatWriter {
  readonly name: string;
  /** One line for help and documentation. */
  readonly summary: string;
  /** Most bytes the output takes, from headers alone: compared with the free space before anything is read. */
  estimateBytes(plan: CheckpointPlan): number;
  /**
   * Refuses by name what the format cannot hold, before a weight is read.
   * @throws UnsupportedError
   */
  check(plan: CheckpointPlan): void;
  /** What `--quantization auto` is held to besides its limits; absent: every scheme that serving has. */
  destination?(graph: Graph): Destination;
  /** What the user has to know of such an output, before anything is written. */
  warnings?(plan: CheckpointPlan): readonly string[];
  /**
   * Writes every file but config.json, generation_config.json and those of the tokenizer, which the frame copies
   * unless the writer wrote its own.
   * @throws UserError `write_failed`, and what reading the checkpoint throws
   */
  write(job: ConvertJob): Promise<WriteReport>;
  /**
   * `--verify`: compares the written folder with the online path.
   * @returns what was found equal, for the user
   * @throws UserError `check_failed`
   */
  verify(job: VerifyJob): Promise<string>;
}
