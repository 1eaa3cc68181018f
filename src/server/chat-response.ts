import type { FinishReason } from '../engine/types.js';
import type { ChatLogprobs } from './logprobs.js';
import type { Usage } from './usage.js';

/** What all chunks and the whole response of one request share. */
export interface ResponseHead {
  readonly id: string;
  readonly created: number;
  readonly model: string;
  readonly fingerprint: string;
}

export type OpenAiFinish = 'stop' | 'length';

export function openAiFinish(reason: FinishReason): OpenAiFinish {
  return reason === 'length' ? 'length' : 'stop';
}

export interface ChatChoice {
  readonly index: number;
  readonly text: string;
  readonly logprobs: ChatLogprobs | null;
  readonly finishReason: OpenAiFinish;
  readonly stopReason: string | number | null;
  /** Present when the request asked for ids. */
  readonly tokenIds?: readonly number[];
}

export function chatCompletion(
  head: ResponseHead,
  choices: readonly ChatChoice[],
  usage: Usage,
): Record<string, unknown> {
  return {
    id: head.id,
    object: 'chat.completion',
    created: head.created,
    model: head.model,
    choices: choices.map((choice) => ({
      index: choice.index,
      message: { role: 'assistant', content: choice.text, refusal: null },
      logprobs: choice.logprobs,
      finish_reason: choice.finishReason,
      stop_reason: choice.stopReason,
      ...(choice.tokenIds === undefined ? {} : { token_ids: choice.tokenIds }),
    })),
    usage,
    system_fingerprint: head.fingerprint,
  };
}

export interface ChatChunkChoice {
  readonly index: number;
  readonly delta: Readonly<Record<string, unknown>>;
  readonly logprobs?: ChatLogprobs | null;
  readonly finishReason?: OpenAiFinish;
  readonly stopReason?: string | number | null;
  readonly tokenIds?: readonly number[];
}

/** `usage` undefined: the request did not ask for it and the key is left out. */
export function chatChunk(
  head: ResponseHead,
  choices: readonly ChatChunkChoice[],
  usage: Usage | null | undefined,
): Record<string, unknown> {
  return {
    id: head.id,
    object: 'chat.completion.chunk',
    created: head.created,
    model: head.model,
    system_fingerprint: head.fingerprint,
    choices: choices.map((choice) => ({
      index: choice.index,
      delta: choice.delta,
      logprobs: choice.logprobs ?? null,
      finish_reason: choice.finishReason ?? null,
      ...(choice.finishReason === undefined ? {} : { stop_reason: choice.stopReason ?? null }),
      ...(choice.tokenIds === undefined ? {} : { token_ids: choice.tokenIds }),
    })),
    ...(usage === undefined ? {} : { usage }),
  };
}
