import { createParser, type EventSourceParser } from 'eventsource-parser';
import type { Failure, RequestRecord } from './record.js';

/** An object of a streamed answer. Any server may have written it: every part may be missing, or something else. */
type Fields = Readonly<Record<string, unknown>>;

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
    } else if (event['error'] !== undefined && event['error'] !== null) {
      this.#failure = { kind: 'stream_error', message: errorText(event['error']) };
    } else {
      this.#readChoices(event['choices']);
      this.#readUsage(fieldsOf(event['usage']));
    }
  }

  #readChoices(choices: unknown): void {
    for (const choice of (Array.isArray(choices) ? choices : []).map(fieldsOf)) {
      const text = textOf(choice);
      const isLast = typeof choice['finish_reason'] === 'string';
      if (text !== '') {
        this.#chunksMs.push(this.#nowMs);
        this.#texts.push(text);
      }
      if (text !== '' || isLast) this.#endMs = this.#nowMs;
      if (isLast) this.#isFinished = true;
    }
  }

  #readUsage({ completion_tokens: output, prompt_tokens: input }: Fields): void {
    if (isCount(output)) this.#usage = { inputTokens: isCount(input) ? input : null, outputTokens: output };
  }
}

function parseEvent(data: string): Fields | undefined {
  try {
    const value: unknown = JSON.parse(data);
    return typeof value === 'object' && value !== null ? (value as Fields) : undefined;
  } catch {
    return undefined;
  }
}

/** No fields of what is no object. */
function fieldsOf(value: unknown): Fields {
  return typeof value === 'object' && value !== null ? (value as Fields) : {};
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && Number(value) >= 0;
}

function textOf({ text, delta }: Fields): string {
  if (typeof text === 'string') return text;
  const { reasoning_content: thought, reasoning, content } = fieldsOf(delta);
  return [thought ?? reasoning, content].filter((part) => typeof part === 'string').join('');
}

/** The message of an error in OpenAI's shape, or the error as it is. */
export function errorText(error: unknown): string {
  const message = (error as { message?: unknown } | null)?.message;
  return (typeof message === 'string' ? message : JSON.stringify(error)).slice(0, 500);
}
