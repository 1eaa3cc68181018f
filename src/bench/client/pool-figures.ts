import type { Latencies, LoadFigures } from './figures.js';

/** Several runs of one load as if they had been one, one after the other. */
export function poolFigures(runs: readonly LoadFigures[]): LoadFigures {
  const sum = (pick: (run: LoadFigures) => number): number =>
    runs.reduce((total, run) => total + pick(run), 0);
  const most = (pick: (run: LoadFigures) => number): number => Math.max(0, ...runs.map(pick));
  const all = (key: keyof Latencies): readonly number[] => runs.flatMap(({ latencies }) => latencies[key]);
  return {
    durationMs: sum(({ durationMs }) => durationMs),
    completed: sum(({ completed }) => completed),
    failed: sum(({ failed }) => failed),
    aborted: sum(({ aborted }) => aborted),
    retries: sum(({ retries }) => retries),
    inputTokens: sum(({ inputTokens }) => inputTokens),
    outputTokens: sum(({ outputTokens }) => outputTokens),
    good: runs.some(({ good }) => good === null) ? null : sum(({ good }) => good ?? 0),
    latencies: {
      ttft: all('ttft'),
      tpot: all('tpot'),
      itl: all('itl'),
      e2el: all('e2el'),
      queue: all('queue'),
      e2elQueued: all('e2elQueued'),
    },
    maxOutputTokensPerSecond: most(({ maxOutputTokensPerSecond }) => maxOutputTokensPerSecond),
    maxConcurrentRequests: most(({ maxConcurrentRequests }) => maxConcurrentRequests),
    lagMs: most(({ lagMs }) => lagMs),
    tokenSources: new Set(runs.flatMap(({ tokenSources }) => [...tokenSources])),
    failures: runs.flatMap(({ failures }) => failures),
    requests: runs.flatMap(({ requests }) => requests),
  };
}
