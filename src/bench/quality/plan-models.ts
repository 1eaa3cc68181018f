import { UserError } from '../../errors.js';
import { locateModel, type LocatedModel } from '../../hub/locate.js';
import type { QuantizationFlags } from '../../load/apply-quantization.js';
import {
  planLocated,
  type LoadObserver,
  type LoadOptions,
  type PlannedModel,
} from '../../load/load-model.js';
import { WORKSPACE_BYTES } from '../../load/memory-plan.js';
import { KV_BLOCK_SIZE, kvBytesPerToken } from '../../runtime/kv-layout.js';
import { availableMemoryBytes } from '../../runtime/machine.js';
import { labelScheme } from '../scheme-label.js';
import type { QualityOptions } from './options.js';

/** Tokens of a step: enough to keep the kernels busy, few enough for the activations of large models. */
export const MAX_BATCHED_TOKENS = 1024;
const GIB = 1024 ** 3;

/** A model that will be loaded, planned from its headers. */
export interface PlannedRun {
  readonly located: LocatedModel;
  readonly options: LoadOptions;
  readonly plan: PlannedModel;
}

/** A model that is measured. */
export interface PlannedScenario extends PlannedRun {
  /** Unique. */
  readonly name: string;
  /** The scheme in it. */
  readonly label: string;
  /** Index into the schemes asked for. */
  readonly scheme: number;
}

/** Plans what is measured: every scheme over every type of KV cache. */
export async function planScenarios(
  options: QualityOptions,
  located: LocatedModel,
  warn: (line: string) => void,
): Promise<readonly PlannedScenario[]> {
  const scenarios: PlannedScenario[] = [];
  for (const [scheme, flags] of options.schemes.entries()) {
    for (const kvCacheDtype of options.kvTypes) {
      const request = { ...flags, kvCacheDtype, dtype: options.dtype };
      const run = await planRun(options, located, request, warn);
      const dtype = options.dtype === 'auto' ? '' : ` dtype=${options.dtype}`;
      const label = labelScheme(run.plan, flags);
      const name = `${label} kv=${run.plan.arithmetic.kv}${dtype}`;
      // Other names may be another spelling of the same.
      if (!scenarios.some((other) => other.name === name)) scenarios.push({ ...run, scheme, label, name });
    }
  }
  return scenarios;
}

/**
 * The unquantized model: float32 throughout, keys and values included, so that divergences hold all that rounding
 * costs.
 * @throws UserError `usage` when its weights are quantized already
 */
export async function planReference(
  options: QualityOptions,
  located: LocatedModel,
  warn: (line: string) => void,
): Promise<PlannedRun | null> {
  const { reference } = options;
  if (reference === null) return null;
  const own = reference === undefined ? located : await locateModel(reference, options.locate);
  const request = { dtype: 'float32', kvCacheDtype: 'float32' } as const;
  const run = await planRun(options, own, request, warn);
  const quantized = run.plan.layers.find(({ scheme }) => scheme !== 'none');
  if (quantized === undefined) return run;
  throw new UserError(
    'usage',
    `Expected an unquantized model to compare with but ${JSON.stringify(own.reference)} is quantized already: ${quantized.name} is ${quantized.scheme}.`,
    {
      param: '--reference',
      suggestions: [
        'Name the checkpoint it was made from: --reference ./the-bf16-checkpoint.',
        'Or measure no divergence: --reference none.',
      ],
    },
  );
}

async function planRun(
  options: QualityOptions,
  located: LocatedModel,
  request: QuantizationFlags & Pick<LoadOptions, 'dtype'>,
  warn: (line: string) => void,
): Promise<PlannedRun> {
  const load: LoadOptions = {
    model: located.reference,
    locate: options.locate,
    ...request,
    threads: options.threads,
    isa: options.isa,
    memory: {
      utilization: options.utilization,
      // Settled once it is known what is measured.
      numBlocks: 1,
      maxNumSeqs: options.maxNumSeqs,
      maxBatchedTokens: MAX_BATCHED_TOKENS,
    },
  };
  const quiet: LoadObserver = { phase: () => undefined, warn };
  return { located, options: load, plan: await planLocated(located, load, quiet) };
}

export function withBlocks(options: LoadOptions, numBlocks: number): LoadOptions {
  return { ...options, memory: { ...options.memory, numBlocks } };
}

/** Bytes that a model takes in memory beside others. */
function bytesOf({ plan }: PlannedRun, numBlocks: number): number {
  const { decoder, arithmetic, memory } = plan;
  const logits = memory.maxLogitRows * decoder.vocabSize * Float32Array.BYTES_PER_ELEMENT;
  const kv = numBlocks * KV_BLOCK_SIZE * kvBytesPerToken(decoder, arithmetic.kv);
  return plan.weightBytes + logits + kv + WORKSPACE_BYTES;
}

export interface GroupOptions {
  /** KV blocks of each model. */
  readonly numBlocks: number;
  /** Share of the available memory that may be used. */
  readonly utilization: number;
  /** Tests say less. */
  readonly availableBytes?: number;
}

/**
 * Scenarios that fit into memory together, with the reference where it is loaded beside them.
 * @throws UserError `out_of_memory` when one does not even fit beside the reference
 */
export function groupScenarios(
  scenarios: readonly PlannedScenario[],
  reference: PlannedRun | null,
  { numBlocks, utilization, availableBytes = availableMemoryBytes() }: GroupOptions,
): readonly (readonly PlannedScenario[])[] {
  const referenceBytes = reference === null ? 0 : bytesOf(reference, numBlocks);
  const budget = availableBytes * utilization - referenceBytes;
  const groups: PlannedScenario[][] = [];
  let rest = 0;
  for (const scenario of scenarios) {
    const bytes = bytesOf(scenario, numBlocks);
    if (bytes > budget) throw doesNotFit(scenario, bytes, referenceBytes, availableBytes * utilization);
    if (bytes > rest) {
      groups.push([]);
      rest = budget;
    }
    groups.at(-1)?.push(scenario);
    rest -= bytes;
  }
  return groups;
}

function doesNotFit(
  { name }: PlannedScenario,
  bytes: number,
  referenceBytes: number,
  usableBytes: number,
): UserError {
  const gib = (value: number): string => `${(value / GIB).toFixed(2)} GiB`;
  const beside = referenceBytes === 0 ? '' : ` beside the unquantized model's ${gib(referenceBytes)}`;
  return new UserError(
    'out_of_memory',
    `${name} does not fit: it takes ${gib(bytes)}${beside}, and ${gib(usableBytes)} may be used.`,
    {
      suggestions: [
        ...(referenceBytes === 0
          ? []
          : [
              'Load one model at a time: --reference-logits FILE keeps the logits of the unquantized one on disk.',
            ]),
        'Answer fewer prompts together: --max-num-seqs 4.',
      ],
    },
  );
}
