import { setTimeout as delay } from 'node:timers/promises';
import { AnswerReader, errorText } from './answer-reader.js';
import { AbortedError, ConnectionError, type HttpClient, type HttpResponse } from './http-client.js';
import type { ChatMessage, Failure, PromptRequest, RequestRecord } from './record.js';

/** How prompts become requests, and how often one is sent. */
export interface RequesterOptions {
  readonly client: HttpClient;
  readonly isChat: boolean;
  /** Path of the route, e.g. `/v1/completions`. */
  readonly endpoint: string;
  /** Name of the model in requests. */
  readonly model: string;
  readonly ignoreEos: boolean;
  /** Sampling and whatever else goes into every body; a key with null removes that field. */
  readonly extraBody: Readonly<Record<string, unknown>>;
  readonly maxRetries: number;
  /** Monotonic milliseconds. */
  readonly now: () => number;
  /** Resolves after the time, or earlier when aborted. */
  readonly wait?: (ms: number, signal?: AbortSignal) => Promise<void>;
}

const FIRST_BACKOFF_MS = 100;
const MAX_BACKOFF_MS = 60_000;
const RETRIED_STATUS = [429, 503];

interface Attempt {
  readonly record: Omit<RequestRecord, 'scheduledMs' | 'sentMs' | 'retries'>;
  /** Milliseconds after which another attempt makes sense; undefined: none does. */
  readonly retryAfterMs: number | undefined;
}

/** Sends prompts to an OpenAI-compatible server and records what happens to each. */
export class Requester {
  readonly #options: RequesterOptions;

  constructor(options: RequesterOptions) {
    this.#options = options;
  }

  /**
   * Sends one request, and again up to maxRetries times where the server refused or lost it before any byte of an answer,
   * or asked to come back later. Never rejects: what went wrong is in the record.
   * @param scheduledMs when it was due, null for as soon as possible
   */
  async send(
    request: PromptRequest,
    scheduledMs: number | null,
    signal?: AbortSignal,
  ): Promise<RequestRecord> {
    const { maxRetries, now, wait = waitFor } = this.#options;
    const payload = JSON.stringify(this.body(request));
    const sentMs = now();
    for (let retries = 0; ; retries++) {
      const { record, retryAfterMs } = await this.#attempt(payload, retries, signal);
      const isLast = retryAfterMs === undefined || retries >= maxRetries || signal?.aborted === true;
      if (isLast) return { ...record, scheduledMs, sentMs, retries };
      await wait(retryAfterMs, signal);
    }
  }

  /** The JSON body of a request. */
  body({ prompt, maxTokens }: PromptRequest): Readonly<Record<string, unknown>> {
    const { isChat, model, ignoreEos, extraBody } = this.#options;
    const input = isChat
      ? { messages: toMessages(prompt), max_completion_tokens: maxTokens }
      : { prompt, max_tokens: maxTokens };
    const fields: Readonly<Record<string, unknown>> = {
      model,
      ...input,
      stream: true,
      stream_options: { include_usage: true },
      ...(ignoreEos ? { ignore_eos: true } : {}),
      ...extraBody,
    };
    return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== null));
  }

  async #attempt(payload: string, retries: number, signal: AbortSignal | undefined): Promise<Attempt> {
    const { client, endpoint, now } = this.#options;
    const reader = new AnswerReader();
    let response: HttpResponse | undefined;
    let other = '';
    const isStream = (): boolean =>
      response?.status === 200 && response.headers['content-type']?.startsWith('text/event-stream') === true;
    try {
      await client.stream(endpoint, payload, {
        signal,
        onResponse: (head) => (response = head),
        onData: (text) => {
          if (isStream()) reader.feed(text, now());
          else other += text;
        },
      });
    } catch (error) {
      return failedAttempt(error, reader, retries);
    }
    if (isStream()) return finishedAttempt(reader);
    return refusedAttempt(response, other, retries);
  }
}

function toMessages(prompt: PromptRequest['prompt']): readonly ChatMessage[] {
  return typeof prompt === 'string'
    ? [{ role: 'user', content: prompt }]
    : (prompt as readonly ChatMessage[]);
}

function finishedAttempt(reader: AnswerReader): Attempt {
  const { failure, ...answer } = reader.end();
  if (failure === undefined) return { record: { ...answer, outcome: 'ok' }, retryAfterMs: undefined };
  return { record: { ...answer, endMs: null, outcome: failure }, retryAfterMs: undefined };
}

/** An answer that is no stream: an error status, or a server that does not stream. */
function refusedAttempt(response: HttpResponse | undefined, body: string, retries: number): Attempt {
  const status = response?.status ?? 0;
  if (status === 200) {
    const type = response?.headers['content-type'] ?? 'nothing';
    return withoutAnswer({
      kind: 'not_streamed',
      message: `The server answered with ${type}, not a stream.`,
    });
  }
  const failure = { kind: `status ${status}`, message: messageOfBody(body) };
  const asked = RETRIED_STATUS.includes(status) ? response?.headers['retry-after'] : undefined;
  return withoutAnswer(failure, asked === undefined ? undefined : retryAfter(asked, retries));
}

function failedAttempt(error: unknown, reader: AnswerReader, retries: number): Attempt {
  if (error instanceof AbortedError) {
    const { chunksMs, text, usage } = reader.end();
    return { record: { chunksMs, text, usage, endMs: null, outcome: 'aborted' }, retryAfterMs: undefined };
  }
  if (!(error instanceof ConnectionError)) throw error;
  const { failure, isBeforeResponse } = error;
  const isRetried = isBeforeResponse && ['refused', 'reset'].includes(failure.kind);
  return withoutAnswer(failure, isRetried ? backoffMs(retries) : undefined);
}

function withoutAnswer(failure: Failure, retryAfterMs?: number): Attempt {
  return { record: { chunksMs: [], endMs: null, text: '', usage: null, outcome: failure }, retryAfterMs };
}

function backoffMs(retries: number): number {
  return Math.min(FIRST_BACKOFF_MS * 2 ** retries, MAX_BACKOFF_MS);
}

/** Retry-After is seconds or a date (RFC 9110 §10.2.3). */
function retryAfter(header: string, retries: number): number {
  const seconds = /^\d+(\.\d+)?$/.test(header.trim())
    ? Number(header)
    : (Date.parse(header) - Date.now()) / 1000;
  return Number.isFinite(seconds)
    ? Math.min(Math.max(0, seconds * 1000), MAX_BACKOFF_MS)
    : backoffMs(retries);
}

function messageOfBody(body: string): string {
  try {
    const value = JSON.parse(body) as { error?: unknown; detail?: unknown; message?: unknown };
    return errorText(value.error ?? value.detail ?? value);
  } catch {
    return body.trim().slice(0, 500) || 'The answer has no body.';
  }
}

async function waitFor(ms: number, signal?: AbortSignal): Promise<void> {
  await delay(ms, undefined, signal === undefined ? {} : { signal }).catch(() => undefined);
}
