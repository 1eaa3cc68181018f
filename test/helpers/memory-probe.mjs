// Loaded into a server by --import: SIGUSR2 collects garbage and writes how much memory is left to MEMORY_PROBE_FILE, in bytes.
import { renameSync, writeFileSync } from 'node:fs';
import process from 'node:process';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { isMainThread } from 'node:worker_threads';

if (isMainThread) {
  setFlagsFromString('--expose-gc');
  const collectGarbage = runInNewContext('gc');
  const file = process.env.MEMORY_PROBE_FILE;
  process.on('SIGUSR2', () => {
    collectGarbage();
    const { rss, heapUsed, external } = process.memoryUsage();
    writeFileSync(`${file}.new`, JSON.stringify({ resident: rss, live: heapUsed + external }));
    renameSync(`${file}.new`, file);
  });
}
