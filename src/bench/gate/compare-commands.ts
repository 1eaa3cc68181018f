import type { BenchReport } from '../report.js';
import { compareSides, type CompareOptions, type Sides } from './compare-sides.js';
import { RoundsChild, type Invocation } from './rounds-child.js';

export interface ComparedBuilds {
  /** This build. */
  readonly now: Invocation;
  readonly baseline: Invocation;
}

/**
 * Compares two builds that run side by side, each in its own process: see compareSides.
 * @throws UserError `usage` for a program that does not start, `runtime_failed` for one that ends or answers something
 * else, and what compareSides throws
 */
export function compareCommands(builds: ComparedBuilds, options: CompareOptions): Promise<BenchReport> {
  return compareSides((signal) => startBoth(builds, signal), options);
}

async function startBoth(builds: ComparedBuilds, signal: AbortSignal | undefined): Promise<Sides> {
  const [now, baseline] = await Promise.allSettled([
    RoundsChild.start(builds.now, signal),
    RoundsChild.start(builds.baseline, signal),
  ]);
  if (now.status === 'fulfilled' && baseline.status === 'fulfilled') {
    return { now: now.value, baseline: baseline.value };
  }
  for (const one of [now, baseline]) if (one.status === 'fulfilled') await one.value.kill();
  throw (now.status === 'rejected' ? now.reason : (baseline as PromiseRejectedResult).reason) as Error;
}
