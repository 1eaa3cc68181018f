import { counted } from '../counted.js';
import { UserError } from '../errors.js';
import type { EngineInfo, GenerationRequest, SamplingParams } from './types.js';

/** Far above any use; keeps one request from filling the memory. */
const MAX_CHOICES = 1024;

type NumericParam = {
  [Name in keyof SamplingParams]-?: SamplingParams[Name] extends number | undefined ? Name : never;
}[keyof SamplingParams];

const WHOLE_FROM: Partial<Record<NumericParam, number>> = {
  topK: 0,
  maxTokens: 0,
  minTokens: 0,
  n: 1,
  logprobs: 0,
  promptLogprobs: 0,
};
const FINITE_FROM: Partial<Record<NumericParam, number>> = {
  temperature: 0,
  topP: 0,
  minP: 0,
  repetitionPenalty: 0,
  presencePenalty: Number.NEGATIVE_INFINITY,
  frequencyPenalty: Number.NEGATIVE_INFINITY,
};

function refuse(message: string, param: string, suggestion: string): never {
  throw new UserError('invalid_request', message, { param, suggestions: [suggestion] });
}

function checkIds(ids: Iterable<number>, name: string, vocabSize: number): void {
  for (const id of ids) {
    if (Number.isInteger(id) && id >= 0 && id < vocabSize) continue;
    refuse(
      `Expected token ids of ${name} to be whole numbers from 0 to ${vocabSize - 1} but received ${id}.`,
      name,
      'Use ids of this model, as /tokenize gives them.',
    );
  }
}

function checkNumbers(params: SamplingParams): void {
  for (const [name, least] of Object.entries(WHOLE_FROM) as [NumericParam, number][]) {
    const value = params[name];
    if (value === undefined || (Number.isSafeInteger(value) && value >= least)) continue;
    const text = `Expected ${name} to be a whole number of at least ${least} but received ${value}.`;
    refuse(text, name, `Use ${least} or more.`);
  }
  for (const [name, least] of Object.entries(FINITE_FROM) as [NumericParam, number][]) {
    const value = params[name];
    if (value === undefined || (Number.isFinite(value) && value >= least)) continue;
    const range = Number.isFinite(least) ? ` of at least ${least}` : '';
    refuse(
      `Expected ${name} to be a finite number${range} but received ${value}.`,
      name,
      'Correct the value.',
    );
  }
}

function checkLists(params: SamplingParams, vocabSize: number): void {
  checkIds(params.logitBias.keys(), 'logitBias', vocabSize);
  for (const [id, bias] of params.logitBias) {
    if (Number.isFinite(bias)) continue;
    refuse(
      `Expected the bias of token ${id} to be finite but received ${bias}.`,
      'logitBias',
      'Use -100 to 100.',
    );
  }
  checkIds(params.allowedTokenIds, 'allowedTokenIds', vocabSize);
  checkIds(params.stopTokenIds, 'stopTokenIds', vocabSize);
  for (const word of params.badWords) {
    if (word.length === 0)
      refuse('Expected bad words but received an empty one.', 'badWords', 'Leave it out.');
    checkIds(word, 'badWords', vocabSize);
  }
  if (params.stop.includes(''))
    refuse('Expected stop strings but received an empty one.', 'stop', 'Leave it out.');
}

function checkChoices(n: number): void {
  if (n > MAX_CHOICES)
    refuse(`Expected n to be at most ${MAX_CHOICES} but received ${n}.`, 'n', 'Send several requests.');
}

/**
 * Refuses what would reach native code unchecked or could never run, before the request touches any state.
 * Returns the most tokens a choice can have: maxTokens, the rest of the context or what the KV pool can hold.
 */
export function checkRequest(request: GenerationRequest, info: EngineInfo): number {
  const { params, promptTokenIds } = request;
  const length = promptTokenIds.length;
  if (length === 0) refuse('Expected a prompt but received no tokens.', 'prompt', 'Send at least one token.');
  checkNumbers(params);
  checkChoices(params.n);
  const isGenerating = params.maxTokens > 0;
  if (length + (isGenerating ? 1 : 0) > info.maxModelLen) {
    const asked = isGenerating ? ' with at least one generated token' : '';
    throw new UserError(
      'context_length_exceeded',
      `Expected at most ${counted(info.maxModelLen, 'token')}${asked} but the prompt has ${length}.`,
      {
        param: 'prompt',
        suggestions: ['Shorten the prompt.', 'Start the server with a larger --max-model-len.'],
      },
    );
  }
  const poolTokens = info.numBlocks * info.blockSize;
  if (length > poolTokens) {
    throw new UserError(
      'context_length_exceeded',
      `Expected a prompt that fits into the ${counted(info.numBlocks, 'KV block')} of ${info.blockSize} tokens ` +
        `(${poolTokens} tokens) but it has ${length}.`,
      {
        param: 'prompt',
        suggestions: ['Shorten the prompt.', 'Start the server with a larger KV cache: --kv-cache-memory.'],
      },
    );
  }
  checkIds(promptTokenIds, 'prompt', info.vocabSize);
  checkLists(params, info.vocabSize);
  // The last generated token is never computed, so it needs no place in the pool.
  return Math.min(params.maxTokens, info.maxModelLen - length, poolTokens - length + 1);
}
