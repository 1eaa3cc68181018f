import { UserError } from '../errors.js';
import type { SamplingParams } from '../engine/types.js';
import type { z } from 'zod';
import type { samplingShape } from './schema-fields.js';
import { checkTokenIds } from './schema-completions.js';
import type { ServedModel } from './state.js';

export type SamplingFields = z.output<z.ZodObject<typeof samplingShape>>;

export interface SamplingContext {
  readonly model: ServedModel;
  /** Most alternatives a request may ask for; -1: the whole vocabulary. */
  readonly maxLogprobs: number;
}

export interface TokenBudget {
  readonly promptLength: number;
  /** What the request asked for, undefined when it did not say. */
  readonly requested: number | undefined;
  /** When the request does not say; undefined: the model's default, else the rest of the context. */
  readonly fallback: number | undefined;
  readonly promptWord: 'messages' | 'prompt';
}

/** Below float32's resolution of a probability: only the most likely token stays. */
const SMALLEST_TOP_P = 1e-9;

function outOfRange(field: string, message: string): UserError {
  return new UserError('invalid_request', `Invalid value for "${field}": ${message}.`, {
    param: field,
    suggestions: ['Change the value or leave the field out.'],
  });
}

/** The sentence OpenAI's clients match to find out that a conversation has to be shortened. */
export function contextLengthExceeded(
  limit: number,
  budget: { promptTokens: number; completionTokens: number; promptWord: string; param: string },
): UserError {
  const { promptTokens, completionTokens, promptWord, param } = budget;
  return new UserError(
    'context_length_exceeded',
    `This model's maximum context length is ${limit} tokens. However, you requested ${promptTokens + completionTokens} tokens ` +
      `(${promptTokens} in the ${promptWord}, ${completionTokens} in the completion).`,
    { param, suggestions: [`Please reduce the length of the ${promptWord} or completion.`] },
  );
}

/**
 * How many tokens may be generated: what was asked for, else the route's or the model's default within the context.
 * @throws UserError `context_length_exceeded` when prompt and completion do not fit.
 */
export function resolveMaxTokens(model: ServedModel, budget: TokenBudget): number {
  const limit = model.engine.info.maxModelLen;
  const { promptLength, requested, promptWord } = budget;
  const rest = limit - promptLength;
  const wanted =
    requested ?? Math.max(1, Math.min(budget.fallback ?? model.defaults.maxTokens ?? rest, rest));
  if (wanted <= rest) return wanted;
  throw contextLengthExceeded(limit, {
    promptTokens: promptLength,
    completionTokens: wanted,
    promptWord,
    param: promptWord,
  });
}

/** @throws UserError `invalid_request` when more alternatives are asked for than the server gives. */
export function resolveLogprobs(field: string, asked: number, context: SamplingContext): number {
  const { maxLogprobs, model } = context;
  const vocabSize = model.engine.info.vocabSize;
  if (asked === -1 && maxLogprobs === -1) return vocabSize;
  if (asked < 0 || (maxLogprobs >= 0 && asked > maxLogprobs)) {
    throw outOfRange(field, `expected 0 to ${maxLogprobs < 0 ? vocabSize : maxLogprobs}, received ${asked}`);
  }
  return Math.min(asked, vocabSize);
}

function readLogitBias(
  bias: Readonly<Record<string, number>>,
  vocabSize: number,
): ReadonlyMap<number, number> {
  const map = new Map<number, number>();
  for (const [key, value] of Object.entries(bias)) {
    const id = Number(key);
    if (id >= vocabSize) throw outOfRange(`logit_bias.${key}`, `expected a token id below ${vocabSize}`);
    map.set(id, value);
  }
  return map;
}

/** A word starts a text or follows a space; both spellings are forbidden, as in vLLM. */
function readBadWords(fields: SamplingFields, model: ServedModel): readonly (readonly number[])[] {
  const vocabSize = model.engine.info.vocabSize;
  const sequences: (readonly number[])[] = [];
  for (const word of fields.bad_words ?? []) {
    const bare = model.tokenizer.encode(word.trimStart(), false);
    const spaced = model.tokenizer.encode(` ${word.trimStart()}`, false);
    if (bare.length > 0) sequences.push(bare);
    if (spaced.length === bare.length && spaced[0] !== bare[0]) sequences.push(spaced);
  }
  for (const id of checkTokenIds(fields.bad_words_token_ids ?? [], vocabSize, 'bad_words_token_ids'))
    sequences.push([id]);
  return sequences;
}

function asList<T>(value: T | readonly T[] | undefined): readonly T[] {
  if (value === undefined) return [];
  return Array.isArray(value) ? (value as readonly T[]) : [value as T];
}

export interface ResolvedOutputs {
  readonly maxTokens: number;
  readonly logprobs: number | undefined;
  readonly promptLogprobs: number | undefined;
}

/**
 * What the engine samples with: the request's value, else the model's default, else OpenAI's.
 * @throws UserError `invalid_request` for ids outside the vocabulary and contradicting fields.
 */
export function resolveSampling(
  fields: SamplingFields,
  outputs: ResolvedOutputs,
  context: SamplingContext,
): SamplingParams {
  const { model } = context;
  const { defaults } = model;
  const vocabSize = model.engine.info.vocabSize;
  const seed = fields.seed ?? defaults.seed;
  const minTokens = fields.min_tokens ?? 0;
  if (minTokens > outputs.maxTokens) {
    throw outOfRange(
      'min_tokens',
      `expected at most the ${outputs.maxTokens} tokens that may be generated, received ${minTokens}`,
    );
  }
  return {
    temperature: fields.temperature ?? defaults.temperature ?? 1,
    topP: Math.max(fields.top_p ?? defaults.topP ?? 1, SMALLEST_TOP_P),
    topK: Math.min(Math.max(fields.top_k ?? defaults.topK ?? 0, 0), vocabSize),
    minP: fields.min_p ?? defaults.minP ?? 0,
    repetitionPenalty: fields.repetition_penalty ?? defaults.repetitionPenalty ?? 1,
    presencePenalty: fields.presence_penalty ?? 0,
    frequencyPenalty: fields.frequency_penalty ?? 0,
    logitBias: readLogitBias(fields.logit_bias ?? {}, vocabSize),
    allowedTokenIds: checkTokenIds(fields.allowed_token_ids ?? [], vocabSize, 'allowed_token_ids'),
    badWords: readBadWords(fields, model),
    ...(seed === undefined ? {} : { seed }),
    maxTokens: outputs.maxTokens,
    minTokens,
    stop: asList(fields.stop),
    stopTokenIds: checkTokenIds(fields.stop_token_ids ?? [], vocabSize, 'stop_token_ids'),
    includeStopStrInOutput: fields.include_stop_str_in_output ?? false,
    ignoreEos: fields.ignore_eos ?? false,
    n: fields.n ?? 1,
    ...(outputs.logprobs === undefined ? {} : { logprobs: outputs.logprobs }),
    ...(outputs.promptLogprobs === undefined ? {} : { promptLogprobs: outputs.promptLogprobs }),
    skipSpecialTokens: fields.skip_special_tokens ?? true,
    spacesBetweenSpecialTokens: fields.spaces_between_special_tokens ?? true,
  };
}

/**
 * Encodes a prompt unless it is so long that it cannot fit however it is split, which would only burn time.
 * @throws UserError `context_length_exceeded`.
 */
export async function encodePrompt(
  model: ServedModel,
  text: string,
  options: { readonly addSpecialTokens: boolean; readonly promptWord: 'messages' | 'prompt' },
): Promise<readonly number[]> {
  const limit = model.engine.info.maxModelLen;
  const fewest = Math.ceil(text.length / model.tokenizer.maxTokenLength);
  if (fewest > limit) {
    throw contextLengthExceeded(limit, {
      promptTokens: fewest,
      completionTokens: 0,
      promptWord: options.promptWord,
      param: options.promptWord,
    });
  }
  return model.tokenizer.encodeText(text, options.addSpecialTokens);
}

/** Keeps the last tokens of a prompt; -1 stands for all that fits the context. */
export function truncatePrompt(
  ids: readonly number[],
  keep: number | undefined,
  model: ServedModel,
): readonly number[] {
  if (keep === undefined) return ids;
  const count = keep === -1 ? model.engine.info.maxModelLen - 1 : keep;
  return count === 0 ? ids : ids.slice(-count);
}
