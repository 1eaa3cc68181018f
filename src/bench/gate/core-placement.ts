import { execFile } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { promisify } from 'node:util';

/** Cores that this process may run on, as Linux numbers them. */
export function allowedCores(): readonly number[] {
  const list = /^Cpus_allowed_list:\s*(\S+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? '';
  return list.split(',').flatMap((range) => {
    const [first = NaN, last = first] = range.split('-').map(Number);
    return Number.isInteger(first) ? Array.from({ length: last - first + 1 }, (_, i) => first + i) : [];
  });
}

/** As many as there are threads, in turns over all cores; undefined where that would be all of them. */
export function coresOfLaunch(
  allowed: readonly number[],
  threads: number,
  launch: number,
): readonly number[] | undefined {
  if (threads >= allowed.length) return undefined;
  return Array.from(
    { length: threads },
    (_, i) => allowed[(launch * threads + i) % allowed.length] as number,
  );
}

/**
 * Keeps every thread of the processes of a session on some cores, whatever started them.
 * @param leader process id of the session's leader
 * @throws when there is no `taskset` (util-linux), or it is not allowed to
 */
export async function placeSession(leader: number, cores: readonly number[]): Promise<void> {
  for (const pid of processesOf(leader)) {
    try {
      await promisify(execFile)('taskset', ['-a', '-c', '-p', cores.join(','), String(pid)]);
    } catch (error) {
      if (existsSync(`/proc/${pid}`)) throw error;
    }
  }
}

function processesOf(leader: number): readonly number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && readSession(name) === leader)
    .map(Number);
}

/** The sixth field of proc(5)'s stat; the second, a name in brackets, may hold blanks. */
function readSession(pid: string): number | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[3]);
  } catch {
    return undefined; // it has ended
  }
}
