// Loaded into a command by --import: at its end the CPU time it took, in seconds, goes to CPU_PROBE_FILE. Unlike the time on the
// clock it does not count what else the machine does.
import { writeFileSync } from 'node:fs';
import process from 'node:process';
import { isMainThread } from 'node:worker_threads';

if (isMainThread) {
  process.on('exit', () => {
    const { user, system } = process.cpuUsage();
    writeFileSync(process.env.CPU_PROBE_FILE, String((user + system) / 1e6));
  });
}
