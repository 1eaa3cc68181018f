import { UserError } from '../../errors.js';
import { locateModel } from '../../hub/locate.js';
import { requestOf } from '../../load/apply-quantization.js';
import { loadText, type LoadedText } from '../../load/load-text.js';
import { KV_BLOCK_SIZE } from '../../runtime/kv-layout.js';
import { digestCheckpoint } from '../checkpoint-digest.js';
import { checkWindow, encodeInputs, readInputs, type Inputs } from './inputs.js';
import type { QualityOptions } from './options.js';
import {
  MAX_BATCHED_TOKENS,
  planReference,
  planScenarios,
  type PlannedRun,
  type PlannedScenario,
} from './plan-models.js';
import { checkReferencePlace, type ReferenceKey } from './reference-file.js';
import { blocksForWindows, countScored } from './windows.js';

/** All that is known before a weight is read. */
export interface Prepared {
  readonly options: QualityOptions;
  readonly scenarios: readonly PlannedScenario[];
  readonly reference: PlannedRun | null;
  readonly text: LoadedText;
  readonly inputs: Inputs;
  /** KV blocks of each model. */
  readonly numBlocks: number;
  /** Of the checkpoint that is measured. */
  readonly digest: string;
  readonly referenceKey: ReferenceKey | null;
  /** Whole sentences, for the user. */
  readonly warnings: readonly string[];
}

/**
 * Reads and plans everything that headers, flags and input files tell.
 * @throws UserError `usage`, and what locating and planning throw
 */
export async function prepare(options: QualityOptions, signal: AbortSignal): Promise<Prepared> {
  for (const scheme of options.schemes) requestOf(scheme);
  if (options.referenceLogits !== undefined) checkReferencePlace(options.referenceLogits);
  const warnings = new Set<string>();
  const warn = (line: string): void => void warnings.add(line);
  const located = await locateModel(options.model, { ...options.locate, signal });
  const files = await readInputs(options, located.dir);
  const scenarios = await planScenarios(options, located, warn);
  const [first] = scenarios;
  if (first === undefined) throw new UserError('usage', 'Expected at least one scheme to measure.');
  const reference = files.text === undefined ? null : await planReference(options, located, warn);
  // All that needs no tokenizer comes before it: a large one takes seconds.
  const limits = limitsOf([...scenarios, ...(reference === null ? [] : [reference])]);
  checkWindow(files, options, limits.maxPositions);
  const text = await loadText(options.tokenizer ?? located.dir, options.chatTemplate);
  try {
    const inputs = await encodeInputs(files, text, options, limits.maxPositions);
    checkIds(inputs, limits.vocab);
    return {
      options,
      scenarios,
      reference,
      text,
      inputs,
      numBlocks: countBlocks(inputs, options),
      digest: await digestCheckpoint(first.plan.checkpoint),
      referenceKey: reference === null ? null : await describeReference(reference, inputs, options),
      warnings: [...warnings],
    };
  } catch (error) {
    await closeText(text);
    throw error;
  }
}

export async function closeText({ renderer, tokenizer }: LoadedText): Promise<void> {
  await renderer.close();
  await tokenizer.close();
}

/**
 * What the inputs of all models may be.
 * @throws UserError `usage` when the models have not one vocabulary, which the tokenizer keeps to
 */
function limitsOf(runs: readonly PlannedRun[]): { readonly vocab: number; readonly maxPositions: number } {
  const maxPositions = Math.min(...runs.map(({ plan }) => plan.decoder.maxPositions));
  return { vocab: commonVocabulary(runs), maxPositions };
}

/** KV blocks for the windows of a step, and for as many prompts as are answered together. */
function countBlocks({ windows, prompts }: Inputs, options: QualityOptions): number {
  const { maxTokens, maxNumSeqs } = options;
  const longest = prompts.reduce((most, { ids }) => Math.max(most, ids.length), 0) + maxTokens;
  return Math.max(
    windows.length === 0 ? 0 : blocksForWindows(options.windows.window, MAX_BATCHED_TOKENS),
    Math.ceil(longest / KV_BLOCK_SIZE) * Math.min(maxNumSeqs, prompts.length),
  );
}

async function describeReference(
  { plan }: PlannedRun,
  { text, windows }: Inputs,
  { windows: { window, stride } }: QualityOptions,
): Promise<ReferenceKey> {
  return {
    checkpoint: await digestCheckpoint(plan.checkpoint),
    textSha256: text?.sha256 ?? '',
    window,
    stride,
    windows: windows.length,
    rows: countScored(windows),
    vocab: plan.decoder.vocabSize,
  };
}

function commonVocabulary(runs: readonly PlannedRun[]): number {
  const [first, ...others] = runs;
  const vocab = first?.plan.decoder.vocabSize ?? 0;
  const other = others.find(({ plan }) => plan.decoder.vocabSize !== vocab);
  if (other === undefined) return vocab;
  throw new UserError(
    'usage',
    `Expected models of one vocabulary but ${JSON.stringify(first?.located.reference ?? '')} has ${vocab} tokens and ${JSON.stringify(other.located.reference)} has ${other.plan.decoder.vocabSize}.`,
    { param: '--reference', suggestions: ['Name the checkpoint that the model was made from.'] },
  );
}

function checkIds({ windows, prompts }: Inputs, vocab: number): void {
  const beyond = [...windows, ...prompts].flatMap(({ ids }) => ids.find((id) => id >= vocab) ?? []);
  if (beyond.length === 0) return;
  throw new UserError(
    'usage',
    `Expected a tokenizer of the model's ${vocab} tokens but it gives id ${beyond[0] ?? 0}.`,
    { param: '--tokenizer', suggestions: ["Leave --tokenizer out to use the model's own."] },
  );
}
