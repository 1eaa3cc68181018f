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
 * @throws UserError `usage` for a program that does not start, `runtime_failed` for one that ends, answers something
 * else or does not answer, and what compareSides throws
 */
export function compareCommands(builds: ComparedBuilds, options: CompareOptions): Promise<BenchReport> {
  return compareSides((signal) => startBoth(builds, signal), options);
}

async function startBoth(builds: ComparedBuilds, signal: AbortSignal | undefined): Promise<Sides> {
  const failed = new AbortController();
  const start = async (build: Invocation): Promise<RoundsChild> => {
    const signals = signal === undefined ? [failed.signal] : [signal, failed.signal];
    try {
      return await RoundsChild.start(build, { signal: AbortSignal.any(signals) });
    } catch (error) {
      // Nobody waits for the other one any more.
      failed.abort(error);
      throw error;
    }
  };
  const [now, baseline] = await Promise.allSettled([start(builds.now), start(builds.baseline)]);
  if (now.status === 'fulfilled' && baseline.status === 'fulfilled') {
    return { now: now.value, baseline: baseline.value };
  }
  for (const one of [now, baseline]) if (one.status === 'fulfilled') await one.value.kill();
  throw (now.status === 'rejected' ? now.reason : (baseline as PromiseRejectedResult).reason) as Error;
}
