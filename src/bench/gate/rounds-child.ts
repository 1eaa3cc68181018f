import { spawn, type ChildProcessByStdio } from 'node:child_process';
import process from 'node:process';
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import { z } from 'zod';
import { formatSeconds } from '../../cli/render.js';
import { UserError } from '../../errors.js';
import type { RoundMetrics, RoundSource } from './compare-sides.js';
import { placeSession } from './core-placement.js';

/** A program and its arguments. */
export interface Invocation {
  /** For messages. */
  readonly text: string;
  readonly file: string;
  readonly args: readonly string[];
}

const readyLine = z.object({
  ready: z.literal(true),
  scenarios: z.array(z.string()).min(1),
  environment: z.unknown(),
});
const roundLine = z.object({
  round: z.number(),
  scenario: z.string(),
  metrics: z.record(z.string(), z.number()),
});

/** Instead of either, before the build ends. */
const errorLine = z.object({
  error: z.object({ message: z.string(), suggestions: z.array(z.string()).optional() }),
});

/** Of what a child wrote to stderr, for messages. */
const STDERR_TAIL = 2000;
/** Starting reads headers of files: what takes longer than some npx does not speak the protocol. */
const START_TIMEOUT_MS = 2 * 60e3;
/** Loading a large model takes minutes; a round that takes as long hangs. */
const ANSWER_TIMEOUT_MS = 15 * 60e3;
/** For a child that was told to end by the end of its input. */
const EXIT_TIMEOUT_MS = 5000;

export interface StartOptions {
  readonly signal?: AbortSignal;
  /** Until the ready line; replaced in tests. */
  readonly timeoutMs?: number;
}

/** What is waited for. */
interface Wanted<T> {
  /** For messages. */
  readonly what: string;
  readonly schema: z.ZodType<T>;
  readonly timeoutMs: number;
}

interface Waiting {
  readonly resolve: (line: string) => void;
  readonly reject: (error: Error) => void;
}

/** A build in a process of its own, with --rounds-from-stdin: docs/bench.md. */
export class RoundsChild implements RoundSource {
  readonly #invocation: Invocation;
  readonly #process: ChildProcessByStdio<Writable, Readable, Readable>;
  readonly #exited: Promise<void>;
  readonly #killWithParent = (): void => this.#kill();
  #waiting: Waiting | undefined;
  #unread: string[] = [];
  #failure: Error | undefined;
  #isClosed = false;
  #stderr = '';
  #scenarios: readonly string[] = [];
  #environment: unknown;

  private constructor(invocation: Invocation) {
    this.#invocation = invocation;
    // In a session of its own: Ctrl-C in the terminal reaches this process alone, which then ends its children.
    this.#process = spawn(invocation.file, [...invocation.args, '--rounds-from-stdin'], {
      stdio: ['pipe', 'pipe', 'pipe'],
      detached: true,
    });
    const { stdin, stdout, stderr } = this.#process;
    stdin.on('error', () => undefined);
    stderr.setEncoding('utf8');
    stderr.on('data', (text: string) => (this.#stderr = (this.#stderr + text).slice(-STDERR_TAIL)));
    createInterface({ input: stdout }).on('line', (line) => this.#receive(line));
    this.#exited = new Promise((resolve) => {
      this.#process.once('error', (error) => {
        this.#fail(this.#error(`cannot be started: ${error.message}`, 'usage'));
        resolve();
      });
      this.#process.once('close', (code, signal) => {
        this.#isClosed = true;
        this.#fail(this.#error(`ended with ${signal ?? `exit code ${code ?? 0}`} instead of an answer`));
        resolve();
      });
    });
    process.once('exit', this.#killWithParent);
  }

  /**
   * Starts a build and waits until it can measure.
   * @throws UserError `usage` for a program that does not start, `runtime_failed` for one that ends, answers
   * something else or says nothing for two minutes; the signal's reason
   */
  static async start(
    invocation: Invocation,
    { signal, timeoutMs = START_TIMEOUT_MS }: StartOptions = {},
  ): Promise<RoundsChild> {
    const child = new RoundsChild(invocation);
    try {
      const ready = await child.#nextLine(signal, { what: 'a ready line', schema: readyLine, timeoutMs });
      child.#scenarios = ready.scenarios;
      child.#environment = ready.environment;
      return child;
    } catch (error) {
      await child.kill();
      throw error;
    }
  }

  get scenarios(): readonly string[] {
    return this.#scenarios;
  }

  get environment(): unknown {
    return this.#environment;
  }

  async measure(round: number, scenario: string, signal?: AbortSignal): Promise<RoundMetrics> {
    this.#process.stdin.write(`${JSON.stringify({ round, scenario })}\n`);
    const answer = await this.#nextLine(signal, {
      what: `the figures of round ${round}`,
      schema: roundLine,
      timeoutMs: ANSWER_TIMEOUT_MS,
    });
    if (answer.round === round && answer.scenario === scenario) return answer.metrics;
    throw this.#error(
      `answered round ${answer.round} of ${JSON.stringify(answer.scenario)} instead of round ${round} of ${JSON.stringify(scenario)}`,
    );
  }

  /** @throws what placeSession throws */
  async place(cores: readonly number[]): Promise<void> {
    const { pid } = this.#process;
    if (pid !== undefined) await placeSession(pid, cores);
  }

  /** Ends the process, at the latest after some seconds by force. */
  async close(): Promise<void> {
    this.#failure ??= this.#error('was closed');
    this.#process.stdin.end();
    const timer = setTimeout(this.#killWithParent, EXIT_TIMEOUT_MS);
    await this.#exited;
    clearTimeout(timer);
    process.off('exit', this.#killWithParent);
  }

  /** Ends the process and those it started by force. */
  async kill(): Promise<void> {
    this.#kill();
    await this.close();
  }

  async #nextLine<T>(signal: AbortSignal | undefined, wanted: Wanted<T>): Promise<T> {
    const line = await this.#readLine(signal, wanted);
    const value = parseJson(line);
    const parsed = wanted.schema.safeParse(value);
    if (parsed.success) return parsed.data;
    const refused = errorLine.safeParse(value);
    if (refused.success) throw this.#refusal(refused.data.error);
    throw this.#error(`answered ${JSON.stringify(line.slice(0, 200))} instead of ${wanted.what}`);
  }

  #readLine(signal: AbortSignal | undefined, { what, timeoutMs }: Wanted<unknown>): Promise<string> {
    return new Promise((resolve, reject) => {
      signal?.throwIfAborted();
      const line = this.#unread.shift();
      if (line !== undefined) return resolve(line);
      if (this.#failure !== undefined) return reject(this.#failure);
      const settle = (finish: () => void): void => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', onAbort);
        this.#waiting = undefined;
        finish();
      };
      const onAbort = (): void => settle(() => reject(signal?.reason as Error));
      const onTimeout = (): void =>
        settle(() => reject(this.#error(`gave no sign of ${what} for ${formatSeconds(timeoutMs / 1000)}`)));
      const timer = setTimeout(onTimeout, timeoutMs);
      signal?.addEventListener('abort', onAbort, { once: true });
      this.#waiting = {
        resolve: (text) => settle(() => resolve(text)),
        reject: (error) => settle(() => reject(error)),
      };
    });
  }

  #receive(line: string): void {
    if (line.trim() === '') return;
    if (this.#waiting === undefined) this.#unread.push(line);
    else this.#waiting.resolve(line);
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    this.#waiting?.reject(this.#failure);
  }

  /** A process that ended may have left others in its group, which hold its streams open. */
  #kill(): void {
    const { pid } = this.#process;
    if (pid === undefined || this.#isClosed) return;
    try {
      process.kill(-pid, 'SIGKILL');
    } catch {
      this.#process.kill('SIGKILL');
    }
  }

  #refusal({ message, suggestions = [] }: z.infer<typeof errorLine>['error']): UserError {
    return new UserError('runtime_failed', `${JSON.stringify(this.#invocation.text)} failed: ${message}`, {
      param: '--baseline-command',
      suggestions,
    });
  }

  #error(problem: string, code: 'usage' | 'runtime_failed' = 'runtime_failed'): UserError {
    const said = this.#stderr.trim();
    return new UserError(
      code,
      `${JSON.stringify(this.#invocation.text)} ${problem}.${said === '' ? '' : ` It wrote:\n${said}`}`,
      {
        param: '--baseline-command',
        suggestions: [
          'Run it by hand with the same arguments, for example with --print-config, to see what it says.',
        ],
      },
    );
  }
}

function parseJson(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}
