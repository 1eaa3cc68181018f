import type { LoadResult } from './load.js';
import { failureOf, type Failure, type PromptRequest, type RequestRecord } from './record.js';

/** Longest times in milliseconds that still count for goodput. */
export type GoodputLimits = Readonly<Partial<Record<'ttft' | 'tpot' | 'e2el', number>>>;

export interface FigureOptions {
  readonly requests: readonly PromptRequest[];
  readonly goodput: GoodputLimits;
  /** Tokens of a text, where a tokenizer is at hand. */
  readonly countTokens?: (text: string) => number;
  /** p99 of the client's event loop lag. */
  readonly lagMs: number;
}

/** Single times in milliseconds; one a request that succeeded, but for `itl`: one a gap between two chunks. */
export interface Latencies {
  /** Sent to first text. */
  readonly ttft: readonly number[];
  /** (e2el - ttft) / (tokens - 1), of answers of two tokens and more. */
  readonly tpot: readonly number[];
  readonly itl: readonly number[];
  /** Sent to last chunk. */
  readonly e2el: readonly number[];
  /** Due to sent; empty where requests have no due time. */
  readonly queue: readonly number[];
  /** Due to last chunk; empty likewise. */
  readonly e2elQueued: readonly number[];
}

/** What one run of a load added up to. */
export interface LoadFigures {
  readonly durationMs: number;
  readonly completed: number;
  readonly failed: number;
  /** Requests that Ctrl-C ended. */
  readonly aborted: number;
  readonly retries: number;
  readonly inputTokens: number;
  readonly outputTokens: number;
  /** Requests within all limits; null without limits. */
  readonly good: number | null;
  readonly latencies: Latencies;
  /** Most chunks that arrived in one second, counted from the first request. */
  readonly maxOutputTokensPerSecond: number;
  readonly maxConcurrentRequests: number;
  readonly lagMs: number;
  /** How answers were counted, over all requests. */
  readonly tokenSources: ReadonlySet<TokenSource>;
  readonly failures: readonly Failure[];
  /** One a request that was sent, in their order. */
  readonly requests: readonly RequestFigures[];
}

/** Where the length of an answer comes from. */
export type TokenSource = 'usage' | 'tokenizer' | 'chunks';

export interface RequestFigures {
  readonly record: RequestRecord;
  readonly inputTokens: number;
  readonly outputTokens: number;
  readonly ttftMs: number;
  readonly itlMs: readonly number[];
  readonly e2elMs: number;
}

type Finished = RequestFigures & { readonly tpotMs: number };

/** Adds up what was seen. Failed and aborted requests are counted; their times and tokens are not. */
export function computeFigures({ records, durationMs }: LoadResult, options: FigureOptions): LoadFigures {
  const sources = new Set<TokenSource>();
  const requests = records.map((record, index) =>
    describeRequest(record, options, { planned: options.requests[index]?.inputTokens ?? 0, sources }),
  );
  const done = requests.filter(({ record }) => record.outcome === 'ok').map(withTpot);
  const scheduled = done.filter(({ record }) => record.scheduledMs !== null);
  const queueOf = ({ record }: Finished): number => record.sentMs - (record.scheduledMs ?? record.sentMs);
  const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);
  const failures = records.map(failureOf).filter((failure) => failure !== undefined);
  return {
    durationMs,
    completed: done.length,
    failed: failures.length,
    aborted: records.filter(({ outcome }) => outcome === 'aborted').length,
    retries: sum(records.map(({ retries }) => retries)),
    inputTokens: sum(done.map(({ inputTokens }) => inputTokens)),
    outputTokens: sum(done.map(({ outputTokens }) => outputTokens)),
    good: Object.keys(options.goodput).length === 0 ? null : countGood(done, options.goodput),
    latencies: {
      ttft: done.map(({ ttftMs }) => ttftMs),
      tpot: done.filter(({ outputTokens }) => outputTokens > 1).map(({ tpotMs }) => tpotMs),
      itl: done.flatMap(({ itlMs }) => itlMs),
      e2el: done.map(({ e2elMs }) => e2elMs),
      queue: scheduled.map(queueOf),
      e2elQueued: scheduled.map((one) => one.e2elMs + queueOf(one)),
    },
    maxOutputTokensPerSecond: countPeakChunks(done),
    maxConcurrentRequests: countPeakRequests(done),
    lagMs: options.lagMs,
    tokenSources: sources,
    failures,
    requests,
  };
}

function describeRequest(
  record: RequestRecord,
  { countTokens }: FigureOptions,
  { planned, sources }: { readonly planned: number; readonly sources: Set<TokenSource> },
): RequestFigures {
  const { chunksMs, endMs, sentMs, usage, outcome } = record;
  const inputTokens = usage?.inputTokens ?? planned;
  if (outcome !== 'ok' || endMs === null) {
    return { record, inputTokens, outputTokens: 0, ttftMs: 0, itlMs: [], e2elMs: 0 };
  }
  const source = usage !== null ? 'usage' : countTokens !== undefined ? 'tokenizer' : 'chunks';
  sources.add(source);
  return {
    record,
    inputTokens,
    outputTokens: usage?.outputTokens ?? countTokens?.(record.text) ?? chunksMs.length,
    // Answers whose tokens have no text, special tokens alone, show a first sign of life at their end only.
    ttftMs: (chunksMs[0] ?? endMs) - sentMs,
    itlMs: chunksMs.slice(1).map((at, i) => at - (chunksMs[i] ?? at)),
    e2elMs: endMs - sentMs,
  };
}

function withTpot(request: RequestFigures): Finished {
  const { outputTokens, e2elMs, ttftMs } = request;
  return { ...request, tpotMs: outputTokens > 1 ? (e2elMs - ttftMs) / (outputTokens - 1) : 0 };
}

/** As in vLLM: a limit is kept when reached exactly, and an answer of one token has a tpot of 0. */
function countGood(done: readonly Finished[], limits: GoodputLimits): number {
  const { ttft = Infinity, tpot = Infinity, e2el = Infinity } = limits;
  return done.filter(({ ttftMs, tpotMs, e2elMs }) => ttftMs <= ttft && tpotMs <= tpot && e2elMs <= e2el)
    .length;
}

function countPeakChunks(done: readonly Finished[]): number {
  const startMs = done.reduce((first, { record }) => Math.min(first, record.sentMs), Infinity);
  const seconds = new Map<number, number>();
  for (const at of done.flatMap(({ record }) => record.chunksMs)) {
    const second = Math.floor((at - startMs) / 1000);
    seconds.set(second, (seconds.get(second) ?? 0) + 1);
  }
  return [...seconds.values()].reduce((most, count) => Math.max(most, count), 0);
}

/** Requests count from their start up to, not including, their end. */
function countPeakRequests(done: readonly Finished[]): number {
  const events = done.flatMap(({ record: { sentMs }, e2elMs }) => [
    { at: sentMs, change: 1 },
    { at: sentMs + e2elMs, change: -1 },
  ]);
  events.sort((a, b) => a.at - b.at || a.change - b.change);
  let running = 0;
  return events.reduce((peak, { change }) => Math.max(peak, (running += change)), 0);
}
