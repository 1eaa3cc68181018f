import process from 'node:process';
import { Listr, ListrLogger, ProcessOutput, type ListrTaskWrapper } from 'listr2';
import { formatBytes, formatSeconds, printable } from './render.js';
import type { PhaseDetail, PhaseName, PhaseState } from './serve-ui.js';

/** Phases in the order they run, with what the screen calls them. */
const PHASES: Readonly<Record<PhaseName, string>> = {
  locate: 'Locate model',
  plan: 'Plan',
  quantize: 'Read and quantize weights',
  build: 'Build session',
  warm_up: 'Warm up',
};

/** Plain output: a line at most this often ... */
const PLAIN_INTERVAL_MS = 5000;
/** ... or after this share of the bytes, unless the last line is this young. */
const PLAIN_SHARE = 0.1;
const PLAIN_MIN_INTERVAL_MS = 1000;

/** Narrower terminals get plain lines. */
const MIN_COLUMNS = 40;

export interface Progress<Name extends string = PhaseName> {
  phase(name: Name, state: PhaseState, detail?: PhaseDetail): void;
  /** Ends the display; resolves when its last line is out. A phase that had not ended is shown as failed. */
  stop(outcome: 'ready' | 'failed'): Promise<void>;
}

/** What the screen calls the phases there are, by name, in the order they run. */
export type PhaseTitles<Name extends string = PhaseName> = Readonly<Partial<Record<Name, string>>>;

export interface ProgressOptions {
  readonly interactive: boolean;
  readonly write: (text: string) => void;
  /** Monotonic milliseconds. */
  readonly now: () => number;
  /** Absent: those of loading a model. */
  readonly titles?: PhaseTitles<string>;
}

/** Progress on stderr: redrawn in a terminal, plain lines elsewhere. */
export function createProgress<Name extends string = PhaseName>(
  titles: PhaseTitles<Name> = PHASES as PhaseTitles<Name>,
): Progress<Name> {
  const write = (text: string): void => void process.stderr.write(text);
  const options = { write, now: () => performance.now(), interactive: isInteractive(), titles };
  return options.interactive ? new ScreenProgress(options.now, titles) : new PlainProgress(options);
}

function isInteractive(): boolean {
  const { CI, TERM } = process.env;
  // Terminals of some CI systems and containers have no width; lines cannot be redrawn there.
  const isWide = process.stderr.isTTY && process.stderr.columns >= MIN_COLUMNS;
  return isWide && (CI === undefined || CI === '' || CI === 'false') && TERM !== 'dumb';
}

/** Phases of which one begins where the one before it ends; nothing is shown before the first. */
export class SequentialProgress {
  #progress: Progress | undefined;
  #current: PhaseName | undefined;
  readonly #titles: PhaseTitles;

  constructor(titles: PhaseTitles) {
    this.#titles = titles;
  }

  /** How far a phase is, which begins now unless it has begun already. */
  enter(name: PhaseName, detail: PhaseDetail): void {
    this.#progress ??= createProgress(this.#titles);
    if (name !== this.#current) {
      if (this.#current !== undefined) this.#progress.phase(this.#current, 'done');
      this.#progress.phase(name, 'start');
      this.#current = name;
    }
    this.#progress.phase(name, 'progress', detail);
  }

  async end(outcome: 'ready' | 'failed'): Promise<void> {
    if (outcome === 'ready' && this.#current !== undefined) this.#progress?.phase(this.#current, 'done');
    await this.#progress?.stop(outcome);
  }
}

/** `1.20 GiB of 2.40 GiB, 1.10 GiB/s, 1.1s left` */
export function describeAmount(detail: PhaseDetail, elapsedMs: number): string {
  const { doneBytes, totalBytes, message } = detail;
  const parts: string[] = [];
  if (doneBytes !== undefined) {
    const rate = elapsedMs > 0 ? (doneBytes * 1000) / elapsedMs : 0;
    parts.push(
      totalBytes === undefined
        ? formatBytes(doneBytes)
        : `${formatBytes(doneBytes)} of ${formatBytes(totalBytes)}`,
    );
    if (rate > 0) parts.push(`${formatBytes(rate)}/s`);
    if (rate > 0 && totalBytes !== undefined && totalBytes > doneBytes) {
      parts.push(`${formatSeconds((totalBytes - doneBytes) / rate)} left`);
    }
  }
  if (message !== undefined && message !== '') parts.push(printable(message).replaceAll('\n', ' '));
  return parts.join(', ');
}

interface Running {
  readonly startedMs: number;
  lastMs: number;
  lastShare: number;
  last: PhaseDetail;
}

/** One line when a phase starts to take long, and one when it is done. */
export class PlainProgress implements Progress {
  private readonly running = new Map<string, Running>();

  constructor(private readonly options: Omit<ProgressOptions, 'interactive'>) {}

  phase(name: string, state: PhaseState, detail: PhaseDetail = {}): void {
    const now = this.options.now();
    const running = this.running.get(name) ?? { startedMs: now, lastMs: now, lastShare: 0, last: {} };
    this.running.set(name, running);
    running.last = { ...running.last, ...detail };
    const { doneBytes = 0, totalBytes = 0 } = running.last;
    const share = totalBytes > 0 ? doneBytes / totalBytes : 0;
    const sinceLast = now - running.lastMs;
    const isDue =
      sinceLast >= PLAIN_INTERVAL_MS ||
      (sinceLast >= PLAIN_MIN_INTERVAL_MS && share - running.lastShare >= PLAIN_SHARE);
    if (state === 'start' || (state === 'progress' && !isDue)) return;
    running.lastMs = now;
    running.lastShare = share;
    const amount = describeAmount(running.last, now - running.startedMs);
    const suffix = state === 'progress' ? '' : ` ${doneText(state, now - running.startedMs)}`;
    const titles: PhaseTitles<string> = this.options.titles ?? PHASES;
    this.options.write(`${titles[name] ?? name}:${amount === '' ? '' : ` ${amount}`}${suffix}\n`);
  }

  stop(): Promise<void> {
    this.running.clear();
    return Promise.resolve();
  }
}

function doneText(state: PhaseState, elapsedMs: number): string {
  return state === 'skipped' ? '(skipped)' : `(${formatSeconds(elapsedMs / 1000)})`;
}

type Task = ListrTaskWrapper<unknown, never, never>;

interface Slot {
  task: Pick<Task, 'title' | 'output' | 'skip'> | undefined;
  startedMs: number;
  last: PhaseDetail;
  readonly finished: Promise<void>;
  readonly finish: (error?: Error) => void;
}

/** listr2's list of phases on stderr. */
class ScreenProgress implements Progress {
  private readonly slots = new Map<string, Slot>();
  private list: Promise<unknown> | undefined;
  private isStopped = false;

  constructor(
    private readonly now: () => number,
    private readonly titles: PhaseTitles<string>,
  ) {}

  phase(name: string, state: PhaseState, detail: PhaseDetail = {}): void {
    if (this.isStopped) return;
    this.list ??= this.start();
    const slot = this.slots.get(name);
    if (slot === undefined) return;
    if (state === 'start') slot.startedMs = this.now();
    slot.last = { ...slot.last, ...detail };
    const elapsedMs = this.now() - slot.startedMs;
    const amount = describeAmount(slot.last, elapsedMs);
    if (slot.task !== undefined && amount !== '') slot.task.output = amount;
    if (state === 'start' || state === 'progress') return;
    if (slot.task !== undefined) {
      slot.task.title = `${this.titles[name] ?? name}${amount === '' ? '' : `: ${amount}`} ${doneText(state, elapsedMs)}`;
    }
    slot.finish();
  }

  async stop(outcome: 'ready' | 'failed'): Promise<void> {
    this.isStopped = true;
    for (const slot of this.slots.values())
      slot.finish(outcome === 'ready' ? undefined : new Error('not finished'));
    await this.list;
  }

  private start(): Promise<unknown> {
    for (const name of Object.keys(this.titles)) this.slots.set(name, this.createSlot());
    const tasks = [...this.slots].map(([name, slot]) => ({
      title: this.titles[name] ?? name,
      task: async (_context: unknown, task: Pick<Task, 'title' | 'output' | 'skip'>): Promise<void> => {
        slot.task = task;
        await slot.finished;
      },
    }));
    const output = new ProcessOutput(process.stderr, process.stderr);
    const list = new Listr(tasks, {
      registerSignalListeners: false,
      rendererOptions: {
        logger: new ListrLogger({ useIcons: true, processOutput: output }),
        showErrorMessage: false,
      },
    });
    return list.run().catch(() => undefined);
  }

  private createSlot(): Slot {
    let finish: Slot['finish'] = () => undefined;
    const finished = new Promise<void>((resolve, reject) => {
      finish = (error) => (error === undefined ? resolve() : reject(error));
    });
    finished.catch(() => undefined);
    return { task: undefined, startedMs: this.now(), last: {}, finished, finish };
  }
}
