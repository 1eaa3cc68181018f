import { z } from 'zod';
import { UserError } from '../errors.js';
import type { ChatMessage } from '../text/chat-template.js';
import { samplingShape, streamShape } from './schema-fields.js';

const ROLES = ['system', 'developer', 'user', 'assistant', 'tool'] as const;

const part = z.looseObject({ type: z.string() });
const message = z.looseObject({
  role: z.enum(ROLES),
  content: z.union([z.string(), z.array(part)], 'a string or an array of content parts').nullish(),
});
export type WireMessage = z.output<typeof message>;

/** What turns messages into a prompt; shared with /tokenize. */
export const templateShape = {
  messages: z.array(message).min(1),
  add_generation_prompt: z.boolean().optional(),
  continue_final_message: z.boolean().optional(),
  add_special_tokens: z.boolean().optional(),
  chat_template: z.string().optional(),
  chat_template_kwargs: z.record(z.string(), z.unknown()).optional(),
  reasoning_effort: z.string().max(64).optional(),
};

export const chatSchema = z.object({
  ...streamShape,
  ...samplingShape,
  ...templateShape,
  max_tokens: z.int().min(1).optional(),
  max_completion_tokens: z.int().min(1).optional(),
  logprobs: z.boolean().optional(),
  top_logprobs: z.int().min(-1).optional(),
  echo: z.literal(false, 'false, for it is of /v1/completions,').optional(),
  best_of: z.int().min(1).optional(),
});
export type ChatBody = z.output<typeof chatSchema>;

/** vLLM's rule: text parts are joined by line breaks for templates, which expect a string. */
function joinParts(parts: readonly z.output<typeof part>[], messageIndex: number): string {
  const texts = parts.map((one, i) => {
    if (one.type === 'text' && typeof one['text'] === 'string') return one['text'];
    const path = `messages[${messageIndex}].content[${i}]`;
    const isText = one.type === 'text';
    throw new UserError(
      'invalid_request',
      isText
        ? `The part at ${path} has no text.`
        : `The part at ${path} has type "${one.type.slice(0, 64)}"; this model reads text only.`,
      {
        param: isText ? `${path}.text` : path,
        suggestions: ['Send parts of the form {"type": "text", "text": "..."}.'],
      },
    );
  });
  return texts.join('\n');
}

/** Templates print arguments as an object; clients send them as the JSON text the model wrote. */
function withParsedArguments(call: unknown): unknown {
  const named = call as { function?: { arguments?: unknown } } | null;
  const text = named?.function?.arguments;
  if (typeof text !== 'string') return call;
  try {
    const parsed: unknown = JSON.parse(text);
    if (typeof parsed !== 'object' || parsed === null) return call;
    return { ...named, function: { ...named?.function, arguments: parsed } };
  } catch {
    return call;
  }
}

/**
 * Messages as templates read them.
 * @throws UserError `invalid_request` whose param is the path of a part that is not text, or of a missing content.
 */
export function toChatMessages(messages: readonly WireMessage[]): ChatMessage[] {
  return messages.map((one, i) => {
    const { role, content, tool_calls: calls, ...rest } = one;
    const text = Array.isArray(content) ? joinParts(content, i) : (content ?? null);
    if (text === null && role !== 'assistant') {
      throw new UserError('invalid_request', `The message at messages[${i}] has no content.`, {
        param: `messages[${i}].content`,
        suggestions: ['Send a string, or an array of text parts.'],
      });
    }
    const toolCalls = Array.isArray(calls) ? { tool_calls: calls.map(withParsedArguments) } : {};
    // An answer without content renders as an empty one: most templates concatenate it.
    return { ...rest, ...toolCalls, role, content: text ?? '' };
  });
}
