// Loaded into a server by --import: how long its event loop was late; what of that its thread was at work; and what is left of
// it without the time for which it waited for a core that others had. The first two figures of /proc/thread-self/schedstat tell.
// SIGUSR2 begins anew; the end of the process writes percentiles in seconds to LOOP_PROBE_FILE.
import { readFileSync, writeFileSync } from 'node:fs';
import process from 'node:process';
import { setInterval } from 'node:timers';
import { isMainThread } from 'node:worker_threads';

const INTERVAL_MS = 10;

/** On kernels that do not count it everything is the loop's own. */
function readClock() {
  const at = performance.now();
  try {
    const [worked, waited] = readFileSync('/proc/thread-self/schedstat', 'utf8').split(' ');
    return { at, worked: Number(worked) / 1e6, waited: Number(waited) / 1e6 };
  } catch {
    return { at, worked: at, waited: 0 };
  }
}

function percentilesSeconds(values) {
  const sorted = Float64Array.from(values).sort();
  const at = (quantile) => (sorted[Math.ceil(sorted.length * quantile) - 1] ?? NaN) / 1000;
  return { p90: at(0.9), p99: at(0.99), max: at(1) };
}

function probe(file) {
  let samples = [];
  let last = readClock();
  const tick = () => {
    const now = readClock();
    const late = Math.max(0, now.at - last.at - INTERVAL_MS);
    const own = Math.max(0, late - (now.waited - last.waited));
    samples.push({ late, own, work: Math.min(late, now.worked - last.worked) });
    last = now;
  };
  setInterval(tick, INTERVAL_MS).unref();
  process.on('SIGUSR2', () => {
    samples = [];
  });
  process.on('exit', () => {
    const late = percentilesSeconds(samples.map((sample) => sample.late));
    const own = percentilesSeconds(samples.map((sample) => sample.own));
    const work = percentilesSeconds(samples.map((sample) => sample.work));
    writeFileSync(file, JSON.stringify({ samples: samples.length, late, own, work }));
  });
}

if (isMainThread) probe(process.env.LOOP_PROBE_FILE);
