import { monitorEventLoopDelay } from 'node:perf_hooks';

const RESOLUTION_MS = 10;
const NS_PER_MS = 1e6;

/** Client times are late by up to this much when the lag is above it, which is worth a warning. */
export const MAX_LAG_MS = 10;

/** Starts to measure how long this process keeps its event loop busy; the function stops and gives p99 in milliseconds. */
export function measureLoopLag(): () => number {
  const delay = monitorEventLoopDelay({ resolution: RESOLUTION_MS });
  delay.enable();
  return () => {
    delay.disable();
    // The timer itself takes its resolution; what is over it is the lag.
    return delay.count === 0 ? 0 : Math.max(0, delay.percentile(99) / NS_PER_MS - RESOLUTION_MS);
  };
}
