import { vi } from 'vitest';

/** Far more than anything takes: only what never comes true fails by it. */
const TIMEOUT_MS = 120_000;
const INTERVAL_MS = 20;

/** Tries until `check` does not throw, and returns its value: for states of other processes, which tell nobody of them. */
export function eventually<T>(check: () => T | Promise<T>): Promise<T> {
  return vi.waitFor(check, { timeout: TIMEOUT_MS, interval: INTERVAL_MS });
}
