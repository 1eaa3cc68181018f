import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { stripVTControlCharacters } from 'node:util';
import { isErrorCode, UserError } from '../../errors.js';

export interface ChildServerOptions {
  /** bin/run.js of the fdq to run. */
  readonly bin: string;
  /** Settings of `fdq serve` by the names of its flags. */
  readonly settings: Readonly<Record<string, unknown>>;
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** Hears each line that the server prints while it starts. */
  readonly onLine: (line: string) => void;
  readonly signal?: AbortSignal;
}

export interface ChildServer {
  readonly url: URL;
  readonly pid: number;
  /** SIGTERM, and SIGKILL to a server that stays; resolves when it is gone. */
  stop(): Promise<void>;
}

/** The fifth of the streams that the server is given. */
const CONFIG = '/dev/fd/4';
const STOP_MS = 10_000;
const KEPT_LINES = 20;
const ERROR = 'Error: ';
const CODE = 'Code: ';

/** Ends the server when the channel to this process closes, however this process ended. */
const EXIT_WITH_PARENT = `data:text/javascript,${encodeURIComponent(
  "process.on('disconnect', () => process.kill(process.pid, 'SIGKILL')); process.channel?.unref();",
)}`;

/**
 * Runs `fdq serve` on a free port of this machine until it is ready. It does not survive this process.
 * @throws UserError that the server ends with before it is ready, else `server_unreachable` with what it printed
 */
export async function startChildServer(options: ChildServerOptions): Promise<ChildServer> {
  const { bin, settings, environment, signal } = options;
  // A file, not flags: values keep their types, and a config file of the user is not read a second time.
  const config = openUnnamed(JSON.stringify(settings));
  const child = spawn(
    process.execPath,
    [
      ...['--import', EXIT_WITH_PARENT, bin, 'serve', '--config', CONFIG],
      '--port',
      '0',
      '--log-level',
      'warning',
    ],
    // A group of its own: Ctrl-C reaches this process, which ends the server when its requests are done with.
    { env: { ...environment }, stdio: ['ignore', 'ignore', 'pipe', 'ipc', config], detached: true },
  );
  closeSync(config);
  const stop = (): Promise<void> => stopChild(child);
  try {
    const url = await readyUrl(child, options, signal);
    return { url, pid: child.pid ?? 0, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** A file that is gone as soon as the last process closes it: nothing is left behind, however they end. */
function openUnnamed(text: string): number {
  const folder = mkdtempSync(path.join(tmpdir(), 'fdq-bench-'));
  try {
    const file = path.join(folder, 'serve.json');
    writeFileSync(file, text, { mode: 0o600 });
    return openSync(file, 'r');
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

async function readyUrl(
  child: ChildProcess,
  { onLine }: ChildServerOptions,
  signal: AbortSignal | undefined,
): Promise<URL> {
  const lines: string[] = [];
  let rest = '';
  let isReady = false;
  return new Promise<URL>((resolve, reject) => {
    const onAbort = (): void => reject(signal?.reason as Error);
    if (signal?.aborted === true) onAbort();
    signal?.addEventListener('abort', onAbort, { once: true });
    child.once('error', reject);
    child.once('close', (code, name) => reject(startFailed(lines, name ?? code)));
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      const parts = `${rest}${text}`.split('\n');
      rest = parts.pop() ?? '';
      for (const line of parts) {
        lines.push(line);
        if (lines.length > KEPT_LINES) lines.shift();
        const url = /^Ready: (\S+)/.exec(line)?.[1];
        if (url !== undefined) {
          isReady = true;
          resolve(new URL(url));
        } else if (!isReady) onLine(line);
      }
    });
  });
}

function startFailed(lines: readonly string[], end: string | number | null): UserError {
  return (
    readError(lines.map(stripVTControlCharacters)) ??
    new UserError(
      'server_unreachable',
      `fdq serve ended with ${end ?? 'no code'} before it was ready:\n${lines.map((line) => `  ${line}`).join('\n')}`,
      { param: 'model', suggestions: ['Start it by itself to see more: fdq serve with the same flags.'] },
    )
  );
}

/** The error that `fdq serve` printed: the flags it is about are those of this command, and so is the exit code. */
function readError(lines: readonly string[]): UserError | undefined {
  const from = lines.findLastIndex((line) => line.startsWith(ERROR));
  const to = lines.findLastIndex((line) => line.startsWith(CODE));
  const code = lines[to]?.slice(CODE.length) ?? '';
  if (from < 0 || to < from || !isErrorCode(code)) return undefined;
  return new UserError(code, lines.slice(from, to).join('\n').slice(ERROR.length), {
    suggestions: lines.slice(to + 1).flatMap((line) => /^(?:Try: | {2}- )(.+)$/.exec(line)?.[1] ?? []),
  });
}

async function stopChild(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return;
  const exited = once(child, 'exit');
  const timer = setTimeout(() => child.kill('SIGKILL'), STOP_MS);
  child.kill('SIGTERM');
  await exited;
  clearTimeout(timer);
}
