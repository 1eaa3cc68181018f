import { z } from 'zod';
import { UserError } from '../errors.js';
import { samplingShape, streamShape } from './schema-fields.js';

export const MAX_PROMPTS = 2048;

export const completionsSchema = z.object({
  ...streamShape,
  ...samplingShape,
  prompt: z.unknown(),
  max_tokens: z.int().min(0).optional(),
  max_completion_tokens: z.int().min(0).optional(),
  echo: z.boolean().optional(),
  logprobs: z.int().min(0).optional(),
  best_of: z.int().min(1).optional(),
  add_special_tokens: z.boolean().optional(),
});
export type CompletionsBody = z.output<typeof completionsSchema>;

export type Prompt = { readonly text: string } | { readonly ids: readonly number[] };

function invalidPrompt(message: string, param: string): UserError {
  return new UserError('invalid_request', message, {
    param,
    suggestions: [
      'The prompt is a string, an array of strings, an array of token ids, or an array of such arrays.',
    ],
  });
}

/** @throws UserError `invalid_request` naming the first element that is not an id of the vocabulary. */
export function checkTokenIds(
  value: readonly unknown[],
  vocabSize: number,
  param: string,
): readonly number[] {
  value.forEach((id, i) => {
    if (Number.isInteger(id) && (id as number) >= 0 && (id as number) < vocabSize) return;
    throw invalidPrompt(
      `${param}[${i}] is not a token id: expected an integer from 0 to ${vocabSize - 1}.`,
      `${param}[${i}]`,
    );
  });
  return value as readonly number[];
}

/**
 * The four forms of OpenAI's `prompt`. Checked by hand: a schema library takes seconds over millions of ids.
 * @throws UserError `invalid_request` whose param is the path of the offending element.
 */
export function readPrompts(value: unknown, vocabSize: number): readonly Prompt[] {
  if (typeof value === 'string') return [{ text: value }];
  if (!Array.isArray(value)) throw invalidPrompt('The prompt is missing or of a wrong type.', 'prompt');
  const elements = value as readonly unknown[];
  if (elements.length === 0) throw invalidPrompt('The prompt is empty.', 'prompt');
  if (typeof elements[0] === 'number') return [{ ids: checkTokenIds(elements, vocabSize, 'prompt') }];
  if (elements.length > MAX_PROMPTS)
    throw invalidPrompt(`There are more than ${MAX_PROMPTS} prompts.`, 'prompt');
  return elements.map((element, i) => {
    if (typeof element === 'string' && typeof elements[0] === 'string') return { text: element };
    if (Array.isArray(element) && Array.isArray(elements[0])) {
      return { ids: checkTokenIds(element as readonly unknown[], vocabSize, `prompt[${i}]`) };
    }
    throw invalidPrompt(`prompt[${i}] is of another type than expected.`, `prompt[${i}]`);
  });
}
