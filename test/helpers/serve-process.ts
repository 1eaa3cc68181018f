import { spawn } from 'node:child_process';
import { once } from 'node:events';
import process from 'node:process';
import { onTestFinished } from 'vitest';
import { BIN, cleanEnvironment } from './cli.js';

export interface ServedProcess {
  readonly url: string;
  readonly pid: number;
  /** The sample of /metrics whose name and labels start so, e.g. `fdq:up` or `fdq:lag{quantile="0.99"`. */
  metric(start: string): Promise<number>;
  /** SIGTERM; resolves with the exit code. */
  stop(): Promise<number>;
}

/**
 * Runs `fdq serve` on a free port until it is ready; it dies with the test.
 * @param env beside a clean environment
 */
export async function serveProcess(
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<ServedProcess> {
  const child = spawn(process.execPath, [BIN, 'serve', ...args, '--port', '0', '--log-level', 'warning'], {
    env: cleanEnvironment(env),
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  onTestFinished(() => void child.kill('SIGKILL'));
  const exit = once(child, 'close').then(([code]) => code as number);
  let stderr = '';
  const url = await new Promise<string>((resolve, reject) => {
    child.stderr.on('data', (chunk: Buffer) => {
      stderr += chunk.toString();
      const ready = /^Ready: (\S+)/m.exec(stderr)?.[1];
      if (ready !== undefined) resolve(ready);
    });
    void exit.then((code) => reject(new Error(`exited with ${code} before it was ready: ${stderr}`)));
  });
  return {
    url,
    pid: child.pid ?? 0,
    async metric(start) {
      const text = await (await fetch(`${url}/metrics`)).text();
      const line = text.split('\n').find((candidate) => candidate.startsWith(start));
      if (line === undefined) throw new Error(`no metric ${start}`);
      return Number(line.slice(line.lastIndexOf(' ') + 1));
    },
    stop() {
      child.kill('SIGTERM');
      return exit;
    },
  };
}
