import type { ChoiceDelta } from '../engine/types.js';
import { chatChunk, openAiFinish } from './chat-response.js';
import type { ChatChunkChoice } from './chat-response.js';
import type { ChatAnswer } from './chat.js';
import { toChatLogprobs } from './logprobs.js';
import type { StreamSink } from './run.js';
import type { EventStream } from './sse.js';
import type { StreamUsage } from './stream-fields.js';

/**
 * A chat as chunks: the role of every choice, then content, then per choice an empty delta with the reason of its end, then
 * the usage when it was asked for.
 */
export class ChatStreamSink implements StreamSink {
  readonly #events: EventStream;
  readonly #answer: ChatAnswer;
  readonly #usage: StreamUsage;
  readonly #open: Set<number>;
  #hasStarted = false;

  constructor(events: EventStream, answer: ChatAnswer, usage: StreamUsage) {
    this.#events = events;
    this.#answer = answer;
    this.#usage = usage;
    this.#open = new Set(Array.from({ length: answer.numChoices }, (_, index) => index));
  }

  /** Refused at the edge: prompt logprobs are not streamed. */
  onPromptLogprobs(): void {}

  onDelta(_prompt: number, delta: ChoiceDelta): void {
    this.#start();
    const { wantsLogprobs, promptTokenIds, names } = this.#answer;
    const hasDetails = (wantsLogprobs || promptTokenIds !== undefined) && delta.tokenIds.length > 0;
    if (delta.text !== '' || hasDetails) {
      this.#send({
        index: delta.index,
        delta: { content: delta.text },
        logprobs: wantsLogprobs ? toChatLogprobs(delta.logprobs ?? [], names) : null,
        ...(promptTokenIds === undefined ? {} : { tokenIds: delta.tokenIds }),
      });
    }
    if (delta.finishReason !== null) this.#finish(delta);
  }

  onEnd(): void {
    this.#start();
    for (const index of this.#open) this.#send({ index, delta: {}, finishReason: 'length' });
    const usage = this.#usage.atEnd();
    if (usage !== null) this.#events.send(chatChunk(this.#answer.head, [], usage));
  }

  #start(): void {
    if (this.#hasStarted) return;
    this.#hasStarted = true;
    const { promptTokenIds } = this.#answer;
    for (const index of this.#open) {
      const chunk = chatChunk(
        this.#answer.head,
        [{ index, delta: { role: 'assistant', content: '' } }],
        this.#usage.onChunk(),
      );
      this.#events.send(
        promptTokenIds === undefined ? chunk : { ...chunk, prompt_token_ids: promptTokenIds },
      );
    }
  }

  #finish(delta: ChoiceDelta): void {
    this.#open.delete(delta.index);
    this.#send({
      index: delta.index,
      delta: {},
      finishReason: openAiFinish(delta.finishReason ?? 'length'),
      stopReason: delta.stopReason,
    });
  }

  #send(choice: ChatChunkChoice): void {
    this.#events.send(chatChunk(this.#answer.head, [choice], this.#usage.onChunk()));
  }
}
