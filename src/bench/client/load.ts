import { setTimeout as delay } from 'node:timers/promises';
import type { PromptRequest, RequestRecord } from './record.js';

export interface Clock {
  /** Monotonic milliseconds. */
  now(): number;
  /** Resolves at that time, or earlier when aborted. */
  waitUntil(ms: number, signal?: AbortSignal): Promise<void>;
}

export const REAL_CLOCK: Clock = {
  now: () => performance.now(),
  async waitUntil(ms, signal) {
    const left = ms - performance.now();
    if (left > 0) await delay(left, undefined, signal === undefined ? {} : { signal }).catch(() => undefined);
  },
};

export interface LoadOptions {
  readonly requests: readonly PromptRequest[];
  /** Milliseconds from the start at which each request is due; null: as soon as a connection is free. */
  readonly arrivalsMs: readonly number[] | null;
  /** Requests under way at the same time; Infinity: no limit. */
  readonly maxConcurrency: number;
  readonly clock: Clock;
  /** Never rejects. */
  readonly send: (
    request: PromptRequest,
    scheduledMs: number | null,
    signal?: AbortSignal,
  ) => Promise<RequestRecord>;
  /** Stops sending; requests under way are aborted by `send`. */
  readonly signal?: AbortSignal;
  readonly onProgress?: (done: number) => void;
}

export interface LoadResult {
  /** In the order of the requests; those that were never sent are missing at the end. */
  readonly records: readonly RequestRecord[];
  /** From the start to the end of the last request. */
  readonly durationMs: number;
}

/**
 * Sends requests when they are due, at most maxConcurrency at a time. A request that is due while all places are taken
 * waits, and its record keeps when it was due: what a slow server does to later requests is seen, not omitted.
 */
export async function runLoad(options: LoadOptions): Promise<LoadResult> {
  const { requests, arrivalsMs, maxConcurrency, clock, send, signal, onProgress } = options;
  const startMs = clock.now();
  const records: (RequestRecord | undefined)[] = [];
  const places = new Places(maxConcurrency);
  let numDone = 0;
  const launch = async (request: PromptRequest, index: number): Promise<void> => {
    await places.take();
    try {
      if (signal?.aborted === true) return;
      const offset = arrivalsMs?.[index];
      records[index] = await send(request, offset === undefined ? null : startMs + offset, signal);
      onProgress?.(++numDone);
    } finally {
      places.give();
    }
  };
  const tasks: Promise<void>[] = [];
  for (const [index, request] of requests.entries()) {
    const dueMs = startMs + (arrivalsMs?.[index] ?? 0);
    if (dueMs > clock.now()) await clock.waitUntil(dueMs, signal);
    if (signal?.aborted === true) break;
    const task = launch(request, index);
    // Heard at the end, which may be long after it failed.
    task.catch(() => undefined);
    tasks.push(task);
  }
  await Promise.all(tasks);
  return { records: records.filter((record) => record !== undefined), durationMs: clock.now() - startMs };
}

/** A counting semaphore, first come first served. */
class Places {
  #free: number;
  readonly #waiting: (() => void)[] = [];

  constructor(count: number) {
    this.#free = count;
  }

  async take(): Promise<void> {
    if (this.#free > 0) this.#free--;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }

  give(): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#free++;
    else next();
  }
}
