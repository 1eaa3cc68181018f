import { z } from 'zod';
import { describeMismatch, nameExpected } from '../describe-issue.js';
import { UserError } from '../errors.js';

export const MAX_CHOICES = 128;
const MAX_STOP_STRINGS = 16;
const MAX_STOP_CHARS = 1024;
const MAX_LOGIT_BIAS = 1024;
const MAX_BAD_WORDS = 256;
const MAX_NAME_CHARS = 256;
const INT64_MIN = -(2n ** 63n);
const INT64_MAX = 2n ** 63n - 1n;

const tokenId = z.int().min(0);
const shortText = z.string().min(1).max(MAX_NAME_CHARS);
const stopString = z.string().min(1).max(MAX_STOP_CHARS);

/** Fields that mean the same in chat and in completions. Null is treated as absent before this is applied. */
export const samplingShape = {
  temperature: z.number().min(0).max(2).optional(),
  top_p: z.number().min(0).max(1).optional(),
  top_k: z.int().min(-1).optional(),
  min_p: z.number().min(0).max(1).optional(),
  repetition_penalty: z.number().positive().max(10).optional(),
  presence_penalty: z.number().min(-2).max(2).optional(),
  frequency_penalty: z.number().min(-2).max(2).optional(),
  logit_bias: z
    .record(z.string().regex(/^\d{1,10}$/, 'a token id'), z.number().min(-100).max(100))
    .refine(
      (bias) => Object.keys(bias).length <= MAX_LOGIT_BIAS,
      `an object of at most ${MAX_LOGIT_BIAS} entries`,
    )
    .optional(),
  allowed_token_ids: z.array(tokenId).min(1).optional(),
  bad_words: z.array(stopString).max(MAX_BAD_WORDS).optional(),
  bad_words_token_ids: z.array(tokenId).max(MAX_BAD_WORDS).optional(),
  seed: z
    .union([z.int(), z.bigint().min(INT64_MIN).max(INT64_MAX)], 'a 64-bit integer')
    .transform((seed) => BigInt(seed))
    .optional(),
  min_tokens: z.int().min(0).optional(),
  stop: z
    .union([stopString, z.array(stopString).max(MAX_STOP_STRINGS)], {
      error: `a non-empty string or up to ${MAX_STOP_STRINGS} of them, each at most ${MAX_STOP_CHARS} long`,
    })
    .optional(),
  stop_token_ids: z.array(tokenId).max(MAX_BAD_WORDS).optional(),
  include_stop_str_in_output: z.boolean().optional(),
  ignore_eos: z.boolean().optional(),
  n: z.int().min(1).max(MAX_CHOICES).optional(),
  skip_special_tokens: z.boolean().optional(),
  spaces_between_special_tokens: z.boolean().optional(),
  prompt_logprobs: z.int().min(-1).optional(),
  truncate_prompt_tokens: z
    .int()
    .min(-1)
    .refine((keep) => keep !== 0, '-1 or at least 1')
    .optional(),
  return_token_ids: z.boolean().optional(),
  return_tokens_as_token_ids: z.boolean().optional(),
  cache_salt: shortText.optional(),
  priority: z.int().optional(),
  request_id: shortText.optional(),
};

export const streamShape = {
  model: z.string().optional(),
  stream: z.boolean().optional(),
  stream_options: z
    .object({ include_usage: z.boolean().nullish(), continuous_usage_stats: z.boolean().nullish() })
    .optional(),
};

/** Fields that have no effect here and that clients send all the same. */
export const IGNORED_FIELDS: readonly string[] = [
  'user',
  'metadata',
  'store',
  'service_tier',
  'safety_identifier',
  'prompt_cache_key',
  'prompt_cache_retention',
  'verbosity',
  'parallel_tool_calls',
];

const STRUCTURED = 'Structured output is not available yet: leave the field out.';
const TOOLS = 'Tool calls are not available yet: leave the field out.';

interface Refusal {
  readonly field: string;
  /** Values that ask for nothing and are accepted. */
  readonly accepts?: (value: unknown) => boolean;
  readonly advice: string;
}

function isTextFormat(value: unknown): boolean {
  return (value as { type?: unknown } | null)?.type === 'text';
}

/** Known fields that fdq does not act upon. They are refused by name: silence would be a lie. */
const REFUSALS: readonly Refusal[] = [
  { field: 'response_format', accepts: isTextFormat, advice: STRUCTURED },
  { field: 'structured_outputs', advice: STRUCTURED },
  { field: 'guided_json', advice: STRUCTURED },
  { field: 'guided_regex', advice: STRUCTURED },
  { field: 'guided_choice', advice: STRUCTURED },
  { field: 'guided_grammar', advice: STRUCTURED },
  { field: 'structural_tag', advice: STRUCTURED },
  { field: 'guided_json_object', accepts: (value) => value === false, advice: STRUCTURED },
  { field: 'tools', advice: TOOLS },
  { field: 'tool_choice', accepts: (value) => value === 'none', advice: TOOLS },
  { field: 'functions', advice: 'It is deprecated; use tools with a server that has them.' },
  { field: 'function_call', advice: 'It is deprecated; use tools with a server that has them.' },
  {
    field: 'use_beam_search',
    accepts: (value) => value === false,
    advice: 'Use n with a temperature above 0.',
  },
  { field: 'suffix', accepts: (value) => value === '', advice: 'Write the whole context into the prompt.' },
  { field: 'audio', advice: 'Only text can be generated.' },
  {
    field: 'modalities',
    accepts: (value) => JSON.stringify(value) === '["text"]',
    advice: 'Only text can be generated.',
  },
  { field: 'web_search_options', advice: 'The server fetches nothing.' },
  { field: 'logits_processors', advice: 'Use logit_bias or allowed_token_ids.' },
  { field: 'prompt_embeds', advice: 'Send text or token ids.' },
  { field: 'prompt_token_ids', advice: 'Send token ids as the prompt of /v1/completions.' },
  {
    field: 'include_reasoning',
    accepts: (value) => value === true,
    advice: 'Reasoning is part of the content; switch it off with chat_template_kwargs where the model can.',
  },
  {
    field: 'return_metrics',
    accepts: (value) => value === false,
    advice: 'Timings of requests are in the log and in /metrics.',
  },
  {
    field: 'documents',
    accepts: (value) => Array.isArray(value) && value.length === 0,
    advice: 'Write the documents into a message.',
  },
  {
    field: 'length_penalty',
    accepts: (value) => value === 1,
    advice: 'It belongs to beam search; leave the field out.',
  },
  {
    field: 'detokenize',
    accepts: (value) => value === true,
    advice: 'Text is always made; add return_token_ids to get the ids, too.',
  },
  { field: 'thinking_token_budget', advice: 'Leave the field out.' },
  { field: 'reasoning_max_tokens', advice: 'Leave the field out.' },
];

/** @throws UserError `invalid_request` naming the first field that asks for something fdq does not do. */
export function refuseUnsupported(body: Readonly<Record<string, unknown>>): void {
  for (const { field, accepts, advice } of REFUSALS) {
    const value = body[field];
    if (value === undefined || value === null || accepts?.(value) === true) continue;
    throw new UserError('invalid_request', `The field "${field}" is not supported with this value.`, {
      param: field,
      suggestions: [advice],
    });
  }
}

const MAX_SHOWN_PARAM = 200;

/**
 * Checks a body against a schema; top-level nulls count as absent, unknown fields are left out.
 * @throws UserError `invalid_request` whose param is the path of the first offending field.
 */
export function parseFields<T extends z.ZodObject>(
  schema: T,
  body: Readonly<Record<string, unknown>>,
): z.output<T> {
  const present: Record<string, unknown> = {};
  for (const key of Object.keys(schema.shape)) {
    if (Object.hasOwn(body, key) && body[key] !== null) present[key] = body[key];
  }
  const result = schema.safeParse(present, { error: nameExpected });
  if (result.success) return result.data;
  const { path, text } = describeMismatch(result.error, present);
  const shown = path.slice(0, MAX_SHOWN_PARAM);
  throw new UserError('invalid_request', `Expected ${shown} ${text}.`, {
    param: shown,
    suggestions: ['See the API reference for the field’s type and range.'],
  });
}

/** Names of fields that neither the schema nor the lists above know. */
export function unknownFields(schema: z.ZodObject, body: Readonly<Record<string, unknown>>): string[] {
  return Object.keys(body).filter(
    (key) =>
      !Object.hasOwn(schema.shape, key) &&
      !IGNORED_FIELDS.includes(key) &&
      !REFUSALS.some((refusal) => refusal.field === key),
  );
}
