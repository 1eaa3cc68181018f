import { createParser, type EventSourceParser } from 'eventsource-parser';
import type { Failure, RequestRecord } from './record.js';

/** What an event of a streamed answer holds, as far as the client reads it; every part may be missing. */
interface StreamEvent {
  readonly error?: unknown;
  readonly choices?: StreamChoice[];
  readonly usage?: { readonly prompt_tokens?: unknown; readonly completion_tokens?: unknown } | null;
}

interface StreamChoice {
  readonly text?: string | null;
  readonly delta?: Readonly<Record<'content' | 'reasoning_content' | 'reasoning', string | null | undefined>>;
  readonly finish_reason?: string | null;
}

export type Answer = Pick<RequestRecord, 'chunksMs' | 'endMs' | 'text' | 'usage'> & {
  readonly failure: Failure | undefined;
};

/**
 * Reads the server-sent events of one answer. The first token is the first chunk that carries text: chat servers send a
 * chunk with only the role as soon as a request starts. All events of one network read share its time.
 */
export class AnswerReader {
  readonly #parser: EventSourceParser;
  readonly #chunksMs: number[] = [];
  readonly #texts: string[] = [];
  #nowMs = 0;
  #endMs: number | null = null;
  #usage: RequestRecord['usage'] = null;
  #failure: Failure | undefined;
  #isFinished = false;

  constructor() {
    this.#parser = createParser({ onEvent: ({ data }) => this.#read(data) });
  }

  /** @param atMs when the bytes arrived */
  feed(text: string, atMs: number): void {
    this.#nowMs = atMs;
    this.#parser.feed(text);
  }

  /** Call when the response has ended. */
  end(): Answer {
    // A last event without its blank line counts, as it does for other clients.
    this.#parser.feed('\n\n');
    return {
      chunksMs: this.#chunksMs,
      endMs: this.#endMs,
      text: this.#texts.join(''),
      usage: this.#usage,
      failure: this.#failure ?? this.#missing(),
    };
  }

  #missing(): Failure | undefined {
    if (this.#isFinished && this.#endMs !== null) return undefined;
    if (this.#endMs === null) return { kind: 'empty', message: 'The stream ended without any token.' };
    return { kind: 'truncated', message: 'The stream ended without [DONE] or a finish reason.' };
  }

  #read(data: string): void {
    if (this.#failure !== undefined) return;
    if (data.trim() === '[DONE]') {
      this.#isFinished = true;
      return;
    }
    const event = parseEvent(data);
    if (event === undefined) {
      this.#failure = { kind: 'invalid_stream', message: `An event is not JSON: ${data.slice(0, 200)}` };
    } else if (event.error !== undefined && event.error !== null) {
      this.#failure = { kind: 'stream_error', message: errorText(event.error) };
    } else {
      this.#readChoices(event.choices);
      this.#readUsage(event.usage);
    }
  }

  #readChoices(choices: StreamEvent['choices']): void {
    for (const choice of Array.isArray(choices) ? choices : []) {
      const text = textOf(choice);
      const isLast = typeof choice.finish_reason === 'string';
      if (text !== '') {
        this.#chunksMs.push(this.#nowMs);
        this.#texts.push(text);
      }
      if (text !== '' || isLast) this.#endMs = this.#nowMs;
      if (isLast) this.#isFinished = true;
    }
  }

  #readUsage(usage: StreamEvent['usage']): void {
    const output = usage?.completion_tokens;
    if (typeof output !== 'number') return;
    const input = usage?.prompt_tokens;
    this.#usage = { inputTokens: typeof input === 'number' ? input : null, outputTokens: output };
  }
}

function parseEvent(data: string): StreamEvent | undefined {
  try {
    const value: unknown = JSON.parse(data);
    return typeof value === 'object' && value !== null ? value : undefined;
  } catch {
    return undefined;
  }
}

function textOf({ text, delta }: StreamChoice): string {
  if (typeof text === 'string') return text;
  return `${delta?.reasoning_content ?? delta?.reasoning ?? ''}${delta?.content ?? ''}`;
}

/** The message of an error in OpenAI's shape, or the error as it is. */
export function errorText(error: unknown): string {
  const message = (error as { message?: unknown } | null)?.message;
  return (typeof message === 'string' ? message : JSON.stringify(error)).slice(0, 500);
}
