import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import process from 'node:process';
import { describe, expect, it, onTestFinished } from 'vitest';
import { allowedCores, coresOfLaunch, placeSession } from '../../../../src/bench/gate/core-placement.js';

/** Starts a child of its own, and says its id. */
const PARENT = `
const child = require('child_process').spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)']);
process.stdout.write(String(child.pid));
setInterval(() => {}, 1000);
`;

function coresOf(pid: number): string | undefined {
  return /^Cpus_allowed_list:\s*(\S+)$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
}

describe('allowedCores', () => {
  it('has those that this process may use', () => {
    const cores = allowedCores();
    expect(cores.length).toBeGreaterThan(0);
    expect(new Set(cores).size).toBe(cores.length);
    expect(cores.every(Number.isInteger)).toBe(true);
  });
});

describe('coresOfLaunch', () => {
  it('takes as many as there are threads, in turns', () => {
    const turns = (threads: number): readonly unknown[] =>
      [0, 1, 2, 3].map((launch) => coresOfLaunch([0, 1, 4], threads, launch));
    expect(turns(1)).toEqual([[0], [1], [4], [0]]);
    expect(turns(2)).toEqual([
      [0, 1],
      [4, 0],
      [1, 4],
      [0, 1],
    ]);
  });

  it('chooses nothing where all are needed', () => {
    expect(coresOfLaunch([0, 1], 2, 0)).toBeUndefined();
    expect(coresOfLaunch([0, 1], Infinity, 0)).toBeUndefined();
  });
});

describe('placeSession', () => {
  it('moves a process and those that it started', async () => {
    const parent = spawn(process.execPath, ['-e', PARENT], {
      detached: true,
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    const leader = parent.pid ?? NaN;
    onTestFinished(() => void process.kill(-leader, 'SIGKILL'));
    const [said] = (await once(parent.stdout, 'data')) as [Buffer];
    const last = allowedCores().at(-1) as number;
    await placeSession(leader, [last]);
    expect(coresOf(leader)).toBe(String(last));
    expect(coresOf(Number(said.toString()))).toBe(String(last));
  });

  it('says why it cannot', async () => {
    const child = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)'], {
      detached: true,
      stdio: 'ignore',
    });
    onTestFinished(() => void child.kill('SIGKILL'));
    await once(child, 'spawn');
    await expect(placeSession(child.pid ?? NaN, [100_000])).rejects.toThrow('taskset');
  });
});
