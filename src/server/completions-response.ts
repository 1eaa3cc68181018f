import type { OpenAiFinish, ResponseHead } from './chat-response.js';
import type { CompletionLogprobs, PromptLogprobs } from './logprobs.js';
import type { Usage } from './usage.js';

export interface CompletionChoice {
  readonly index: number;
  readonly text: string;
  readonly logprobs: CompletionLogprobs | null;
  readonly finishReason: OpenAiFinish | null;
  readonly stopReason: string | number | null;
  readonly tokenIds?: readonly number[];
  readonly promptTokenIds?: readonly number[];
  readonly promptLogprobs?: PromptLogprobs;
}

function wireChoice(choice: CompletionChoice): Record<string, unknown> {
  return {
    index: choice.index,
    text: choice.text,
    logprobs: choice.logprobs,
    finish_reason: choice.finishReason,
    stop_reason: choice.stopReason,
    ...(choice.promptLogprobs === undefined ? {} : { prompt_logprobs: choice.promptLogprobs }),
    ...(choice.tokenIds === undefined ? {} : { token_ids: choice.tokenIds }),
    ...(choice.promptTokenIds === undefined ? {} : { prompt_token_ids: choice.promptTokenIds }),
  };
}

/** A whole response and a chunk have the same shape; `usage` undefined leaves the key out. */
export function textCompletion(
  head: ResponseHead,
  choices: readonly CompletionChoice[],
  usage: Usage | null | undefined,
): Record<string, unknown> {
  return {
    id: head.id,
    object: 'text_completion',
    created: head.created,
    model: head.model,
    system_fingerprint: head.fingerprint,
    choices: choices.map(wireChoice),
    ...(usage === undefined ? {} : { usage }),
  };
}
