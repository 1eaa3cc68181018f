import { execFile } from 'node:child_process';
import path from 'node:path';
import process from 'node:process';
import { fileURLToPath } from 'node:url';

export const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..', '..');
export const BIN = path.join(ROOT, 'bin', 'run.js');

/** Of a process that never ends: it dies before its test does. */
export const CHILD_TIMEOUT_MS = 300_000;

export interface CliResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface CliOptions {
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string>>;
}

/** The environment of a user who has set nothing: no FDQ_ variables, no config file, no colours. */
export function cleanEnvironment(extra: Readonly<Record<string, string>> = {}): NodeJS.ProcessEnv {
  const inherited = Object.entries(process.env).filter(
    ([name]) => !/^(FDQ_|HF_|XDG_|DEBUG$|NODE_OPTIONS$|VITEST|NODE_ENV$|FORCE_COLOR$)/.test(name),
  );
  return {
    ...Object.fromEntries(inherited),
    XDG_CONFIG_HOME: path.join(ROOT, 'test', 'no-such-folder'),
    NO_COLOR: '1',
    ...extra,
  };
}

/** Runs the built command line to its end, without stdin. */
export function runCli(
  args: readonly string[],
  { cwd = ROOT, env = {} }: CliOptions = {},
): Promise<CliResult> {
  return new Promise((resolve, reject) => {
    const options = { cwd, env: cleanEnvironment(env), encoding: 'utf8', timeout: CHILD_TIMEOUT_MS } as const;
    const child = execFile(process.execPath, [BIN, ...args], options, (error, stdout, stderr) => {
      const code = error === null ? 0 : error.code;
      if (typeof code === 'number') resolve({ code, stdout, stderr });
      else reject(error ?? new Error('no exit code'));
    });
    child.stdin?.end();
  });
}
