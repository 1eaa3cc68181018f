import type { LeftOut } from '../gate/left-out.js';
import type { QualityOptions } from './options.js';

const OF_TEXT = ['perplexity', 'nll'];
const AGAINST_REFERENCE = ['kl', 'kl_p99', 'top1'];
const OF_PROMPTS = ['accuracy'];
const OF_LAYERS = ['layer_frobenius', 'layer_sqnr_min'];

/** Which inputs there are. */
export interface KnownInputs {
  readonly text: boolean;
  readonly prompts: boolean;
}

/**
 * Figures that no scenario will have.
 * @param inputs absent: what flags alone tell; a model's folder may bring inputs where no flag names one
 */
export function leftOutOfQuality(
  options: Pick<QualityOptions, 'reference' | 'layers' | 'text' | 'prompts'>,
  inputs: KnownInputs = inputsOfFlags(options),
): readonly LeftOut[] {
  const leftOut: LeftOut[] = [];
  if (options.reference === null) {
    leftOut.push({
      metrics: AGAINST_REFERENCE,
      reason: '--reference none leaves out what is diverged from',
      suggestion: 'Leave --reference none out.',
    });
  }
  if (!options.layers) {
    leftOut.push({
      metrics: OF_LAYERS,
      reason: 'layers are measured with --layers only',
      suggestion: 'Add --layers.',
    });
  }
  if (!inputs.text) {
    leftOut.push({
      metrics: [...OF_TEXT, ...AGAINST_REFERENCE],
      reason: 'there is no text to score',
      suggestion: 'Name a UTF-8 file: --text wiki.test.raw.',
    });
  }
  if (!inputs.prompts) {
    leftOut.push({
      metrics: OF_PROMPTS,
      reason: 'there are no prompts to answer',
      suggestion: 'Name a file of prompts with expected answers: --prompts prompts.jsonl.',
    });
  }
  return leftOut;
}

/** One that is named rules out those of the model's folder. */
function inputsOfFlags({ text, prompts }: Pick<QualityOptions, 'text' | 'prompts'>): KnownInputs {
  const isOpen = text === undefined && prompts === undefined;
  return { text: isOpen || text !== undefined, prompts: isOpen || prompts !== undefined };
}
