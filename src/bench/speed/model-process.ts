import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { BugError, UserError } from '../../errors.js';
import type { LoadPhase } from '../../load/load-model.js';
import type { RoundSample } from './measure-round.js';
import type { SpeedCase } from './options.js';
import type { SpeedLoadOptions } from './plan.js';
import { fromPlainError, type LoadProgress, type WorkerReply, type WorkerRequest } from './protocol.js';

const WORKER = new URL('./worker.js', import.meta.url);

export interface MeasuredRound {
  readonly sample: RoundSample;
  readonly peakRssBytes: number;
}

export interface ModelProcessOptions {
  readonly load: SpeedLoadOptions;
  /** Ends the process at once. */
  readonly signal: AbortSignal;
  readonly onProgress?: (progress: LoadProgress) => void;
}

/** A model in a process of its own. */
export interface ModelProcess {
  /** Wall time of each phase of loading. */
  readonly seconds: Readonly<Record<LoadPhase, number>>;
  measure(what: SpeedCase): Promise<MeasuredRound>;
  close(): Promise<void>;
}

/** @throws what loading throws; the signal's reason; UserError `runtime_failed` when the process dies */
export async function startModelProcess(options: ModelProcessOptions): Promise<ModelProcess> {
  options.signal.throwIfAborted();
  const worker = new Worker(options);
  try {
    const reply = await worker.ask({ kind: 'load', options: options.load });
    if (reply.kind !== 'loaded') throw new BugError(`${reply.kind} is no answer to load`);
    return {
      seconds: reply.seconds,
      measure: async (what) => {
        const measured = await worker.ask({ kind: 'measure', what });
        if (measured.kind !== 'measured') throw new BugError(`${measured.kind} is no answer to measure`);
        return measured;
      },
      close: () => worker.close(),
    };
  } catch (error) {
    await worker.close();
    throw error;
  }
}

interface Waiting {
  readonly resolve: (reply: WorkerReply) => void;
  readonly reject: (error: unknown) => void;
}

/** One request at a time. */
class Worker {
  readonly #child: ChildProcess;
  readonly #exited: Promise<unknown>;
  readonly #signal: AbortSignal;
  #waiting: Waiting | undefined;
  #death: Error | undefined;

  constructor({ signal, onProgress }: ModelProcessOptions) {
    this.#signal = signal;
    this.#child = fork(fileURLToPath(WORKER), [], { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] });
    this.#exited = once(this.#child, 'exit').then(([code, name]) =>
      this.#die(code as number, name as string),
    );
    this.#child.on('message', (message: WorkerReply | LoadProgress) => {
      if (message.kind === 'progress') onProgress?.(message);
      else this.#settle(message);
    });
    signal.addEventListener('abort', this.#kill, { once: true });
  }

  ask(request: WorkerRequest): Promise<WorkerReply> {
    return new Promise((resolve, reject) => {
      if (this.#death !== undefined) {
        reject(this.#death);
        return;
      }
      this.#waiting = { resolve, reject };
      this.#child.send(request);
    });
  }

  /** It holds nothing that would have to be put away. */
  async close(): Promise<void> {
    this.#signal.removeEventListener('abort', this.#kill);
    this.#kill();
    await this.#exited;
  }

  readonly #kill = (): void => void this.#child.kill('SIGKILL');

  #settle(reply: WorkerReply): void {
    const waiting = this.#waiting;
    this.#waiting = undefined;
    if (reply.kind === 'failed') waiting?.reject(fromPlainError(reply.error));
    else waiting?.resolve(reply);
  }

  #die(code: number | null, signalName: string | null): void {
    const { aborted, reason } = this.#signal as { readonly aborted: boolean; readonly reason: Error };
    this.#death = aborted
      ? reason
      : new UserError(
          'runtime_failed',
          `The process that had the model ended with ${signalName ?? `code ${String(code)}`}.`,
          { suggestions: ['SIGKILL is what the system does when memory runs out: measure less at a time.'] },
        );
    this.#waiting?.reject(this.#death);
    this.#waiting = undefined;
  }
}
