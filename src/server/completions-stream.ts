import type { ChoiceDelta, TokenLogprob } from '../engine/types.js';
import { openAiFinish } from './chat-response.js';
import type { ResponseHead } from './chat-response.js';
import type { CompletionChoices } from './completions-choices.js';
import { textCompletion } from './completions-response.js';
import type { CompletionChoice } from './completions-response.js';
import type { StreamSink } from './run.js';
import type { EventStream } from './sse.js';
import type { StreamUsage } from './stream-fields.js';

/** Completions as chunks; the last chunk of a choice carries the reason of its end. */
export class CompletionStreamSink implements StreamSink {
  readonly #events: EventStream;
  readonly #head: ResponseHead;
  readonly #choices: CompletionChoices;
  readonly #usage: StreamUsage;
  readonly #open: Set<number>;
  readonly #started = new Set<number>();

  constructor(events: EventStream, head: ResponseHead, choices: CompletionChoices, usage: StreamUsage) {
    this.#events = events;
    this.#head = head;
    this.#choices = choices;
    this.#usage = usage;
    this.#open = new Set(Array.from({ length: choices.count }, (_, index) => index));
  }

  onPromptLogprobs(prompt: number, logprobs: readonly (TokenLogprob | null)[]): void {
    this.#choices.onPromptLogprobs(prompt, logprobs);
  }

  onDelta(prompt: number, delta: ChoiceDelta): void {
    const { job, wantsTokenIds } = this.#choices.answer;
    const index = this.#choices.indexOf(prompt, delta);
    const { text, logprobs } = this.#choices.piece(index, delta);
    const hasDetails = (logprobs !== null || wantsTokenIds) && delta.tokenIds.length > 0;
    if (text === '' && !hasDetails && delta.finishReason === null) return;
    const isFirst = !this.#started.has(index);
    this.#started.add(index);
    if (delta.finishReason !== null) this.#open.delete(index);
    this.#send({
      index,
      text,
      logprobs,
      finishReason: delta.finishReason === null ? null : openAiFinish(delta.finishReason),
      stopReason: delta.stopReason,
      ...(wantsTokenIds ? { tokenIds: delta.tokenIds } : {}),
      ...(wantsTokenIds && isFirst ? { promptTokenIds: job.prompts[prompt] as readonly number[] } : {}),
    });
  }

  onEnd(): void {
    for (const index of this.#open) {
      const { text, logprobs } = this.#choices.piece(index, null);
      this.#send({ index, text, logprobs, finishReason: 'length', stopReason: null });
    }
    const usage = this.#usage.atEnd();
    if (usage !== null) this.#events.send(textCompletion(this.#head, [], usage));
  }

  #send(choice: CompletionChoice): void {
    this.#events.send(textCompletion(this.#head, [choice], this.#usage.onChunk()));
  }
}
