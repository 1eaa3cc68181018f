/** One message of a chat prompt. */
export interface ChatMessage {
  readonly role: string;
  readonly content: string;
}

/** A request before it is sent. */
export interface PromptRequest {
  /** Text, token ids (completions only) or messages (chat only). */
  readonly prompt: string | readonly number[] | readonly ChatMessage[];
  /** Tokens of the prompt as far as the client can tell; null: only the server knows. */
  readonly inputTokens: number | null;
  /** Most tokens to generate. */
  readonly maxTokens: number;
}

/** Why a request failed: a word that is the same for all failures of a kind, and one sentence about this one. */
export interface Failure {
  /** `refused`, `reset`, `timeout`, `status 503`, `stream_error`, `truncated`, `empty`, `not_streamed`, `invalid_stream` or an error code of Node. */
  readonly kind: string;
  readonly message: string;
}

/** What was seen of one request. Times are milliseconds of one monotonic clock. */
export interface RequestRecord {
  /** When it was due; null where requests are sent as soon as others end. */
  readonly scheduledMs: number | null;
  /** Of the first attempt. */
  readonly sentMs: number;
  /** Arrival of every chunk that carried text. */
  readonly chunksMs: readonly number[];
  /** Arrival of the last chunk of the answer, the one with the finish reason included; null of a failed request. */
  readonly endMs: number | null;
  readonly text: string;
  /** The server's own counts; null where it sent none. */
  readonly usage: { readonly inputTokens: number | null; readonly outputTokens: number } | null;
  readonly retries: number;
  /** `aborted`: Ctrl-C ended it. */
  readonly outcome: 'ok' | 'aborted' | Failure;
}

/** The failure of a record, undefined where there is none. */
export function failureOf({ outcome }: Pick<RequestRecord, 'outcome'>): Failure | undefined {
  return typeof outcome === 'object' ? outcome : undefined;
}
