import { setImmediate as turn } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { runLoad, type Clock, type LoadResult } from '../../../../src/bench/client/load.js';
import type { PromptRequest, RequestRecord } from '../../../../src/bench/client/record.js';

/** Time that moves only when everybody waits for it. */
class VirtualClock implements Clock {
  #now = 0;
  readonly #timers: { readonly at: number; readonly wake: () => void }[] = [];

  now(): number {
    return this.#now;
  }

  waitUntil(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((wake) => {
      this.#timers.push({ at: ms, wake });
      signal?.addEventListener('abort', () => wake());
    });
  }

  /** Moves time from timer to timer until the promise settles. */
  async run<T>(work: Promise<T>): Promise<T> {
    const state = { isDone: false };
    const done = (): void => void (state.isDone = true);
    work.then(done, done);
    for (;;) {
      await turn();
      if (state.isDone) return work;
      this.#timers.sort((a, b) => a.at - b.at);
      const next = this.#timers.shift();
      if (next === undefined) throw new Error('nothing moves');
      this.#now = Math.max(this.#now, next.at);
      next.wake();
    }
  }
}

const requestsOf = (count: number): PromptRequest[] =>
  Array.from({ length: count }, (_, i) => ({ prompt: String(i), inputTokens: 1, maxTokens: 1 }));

/** A server that takes `serviceMs` for every request. */
function sender(clock: VirtualClock, serviceMs: number) {
  return async (
    request: PromptRequest,
    scheduledMs: number | null,
    signal?: AbortSignal,
  ): Promise<RequestRecord> => {
    const sentMs = clock.now();
    await clock.waitUntil(sentMs + serviceMs, signal);
    const outcome = signal?.aborted === true ? 'aborted' : 'ok';
    const endMs = clock.now();
    return {
      scheduledMs,
      sentMs,
      chunksMs: [endMs],
      endMs,
      text: request.prompt as string,
      usage: null,
      retries: 0,
      outcome,
    };
  };
}

const sentOf = ({ records }: LoadResult): number[] => records.map(({ sentMs }) => sentMs);

describe('runLoad', () => {
  it('sends requests when they are due', async () => {
    const clock = new VirtualClock();
    const send = sender(clock, 30);
    const arrivalsMs = [10, 15, 100];
    const result = await clock.run(
      runLoad({ requests: requestsOf(3), arrivalsMs, maxConcurrency: Infinity, clock, send }),
    );
    expect(sentOf(result)).toEqual([10, 15, 100]);
    expect(result.durationMs).toBe(130);
  });

  it('keeps when a request was due that had to wait for a place', async () => {
    const clock = new VirtualClock();
    const send = sender(clock, 30);
    const arrivalsMs = [10, 15, 20];
    const result = await clock.run(
      runLoad({ requests: requestsOf(3), arrivalsMs, maxConcurrency: 1, clock, send }),
    );
    expect(sentOf(result)).toEqual([10, 40, 70]);
    expect(result.records.map(({ scheduledMs }) => scheduledMs)).toEqual(arrivalsMs);
  });

  it('keeps as many requests under way as it may, and gives results in the order of requests', async () => {
    const clock = new VirtualClock();
    const progress: number[] = [];
    const result = await clock.run(
      runLoad({
        requests: requestsOf(5),
        arrivalsMs: null,
        maxConcurrency: 2,
        clock,
        send: sender(clock, 10),
        onProgress: (done) => progress.push(done),
      }),
    );
    expect(sentOf(result)).toEqual([0, 0, 10, 10, 20]);
    expect(result.records.map(({ text }) => text)).toEqual(['0', '1', '2', '3', '4']);
    expect(result.records.every(({ scheduledMs }) => scheduledMs === null)).toBe(true);
    expect(progress).toEqual([1, 2, 3, 4, 5]);
  });

  it('sends nothing more once it is aborted, and gives what there is', async () => {
    const clock = new VirtualClock();
    const controller = new AbortController();
    const send = sender(clock, 30);
    const result = await clock.run(
      runLoad({
        requests: requestsOf(10),
        arrivalsMs: null,
        maxConcurrency: 2,
        clock,
        signal: controller.signal,
        send,
        onProgress: (done) => done === 3 && controller.abort(),
      }),
    );
    expect(result.records.map(({ outcome }) => outcome)).toEqual(['ok', 'ok', 'ok', 'aborted']);
  });

  it('passes a bug on', async () => {
    const clock = new VirtualClock();
    const send = (): Promise<never> => Promise.reject(new Error('bug'));
    const run = runLoad({ requests: requestsOf(2), arrivalsMs: null, maxConcurrency: 1, clock, send });
    await expect(clock.run(run)).rejects.toThrow('bug');
  });
});
