// Loaded into a server by --import: how long its event loop was late, and what of that the main thread waited for a core
// that others had (the second figure of /proc/thread-self/schedstat). What is left is its own doing, on any machine.
// SIGUSR2 begins anew; the end of the process writes the 99th percentiles in seconds to LOOP_PROBE_FILE.
import { readFileSync, writeFileSync } from 'node:fs';
import process from 'node:process';
import { setInterval } from 'node:timers';
import { isMainThread } from 'node:worker_threads';

const INTERVAL_MS = 10;
const QUANTILE = 0.99;

/** 0 on kernels that do not count it: everything is the loop's own then. */
function readWaitMs() {
  try {
    return Number(readFileSync('/proc/thread-self/schedstat', 'utf8').split(' ')[1]) / 1e6;
  } catch {
    return 0;
  }
}

function percentileSeconds(values) {
  const sorted = Float64Array.from(values).sort();
  return (sorted[Math.floor(sorted.length * QUANTILE)] ?? NaN) / 1000;
}

function probe(file) {
  let samples = [];
  let last = { at: performance.now(), waited: readWaitMs() };
  const tick = () => {
    const now = { at: performance.now(), waited: readWaitMs() };
    const late = Math.max(0, now.at - last.at - INTERVAL_MS);
    samples.push({ late, own: Math.max(0, late - (now.waited - last.waited)) });
    last = now;
  };
  setInterval(tick, INTERVAL_MS).unref();
  process.on('SIGUSR2', () => {
    samples = [];
  });
  process.on('exit', () => {
    const late = percentileSeconds(samples.map((sample) => sample.late));
    const own = percentileSeconds(samples.map((sample) => sample.own));
    writeFileSync(file, JSON.stringify({ samples: samples.length, late, own }));
  });
}

if (isMainThread) probe(process.env.LOOP_PROBE_FILE);
