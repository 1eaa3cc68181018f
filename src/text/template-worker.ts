import { createRequire } from 'node:module';
import { Worker } from 'node:worker_threads';

/** What one rendering may use up. */
export interface TemplateLimits {
  readonly timeMs: number;
  readonly memoryMiB: number;
  readonly outputChars: number;
  /** Numbers one `range()` may make. */
  readonly rangeItems: number;
}

export const DEFAULT_TEMPLATE_LIMITS: TemplateLimits = {
  timeMs: 2000,
  memoryMiB: 256,
  outputChars: 16 << 20,
  rangeItems: 100_000,
};

export type TemplateOutcome =
  | { readonly kind: 'rendered'; readonly text: string }
  /** The template called raise_exception. */
  | { readonly kind: 'refused'; readonly message: string }
  | { readonly kind: 'failed'; readonly message: string }
  | { readonly kind: 'exceeded'; readonly limit: string };

interface Job {
  readonly id: number;
  readonly template: string;
  readonly variables: Readonly<Record<string, unknown>>;
  readonly resolve: (outcome: TemplateOutcome) => void;
}

/** In place of a job's id: the thread has read its libraries, and the time of a job begins. */
const STARTED = 0;

/**
 * The worker's program. It is text, so that it starts the same from dist/ and from the TypeScript sources (worker_threads
 * cannot load those on Node 20). It runs CommonJS, holds no state but parsed templates, and is killed when it overruns.
 */
const WORKER_PROGRAM = `
const { parentPort, workerData } = require('node:worker_threads');
const { Template, Environment, Interpreter } = require(workerData.jinjaPath);
const { rangeItems, outputChars } = workerData.limits;
const MAX_PARSED = 16;
const parsed = new Map();
function parse(source) {
  let template = parsed.get(source);
  if (template === undefined) {
    template = new Template(source);
    if (parsed.size >= MAX_PARSED) parsed.delete(parsed.keys().next().value);
    parsed.set(source, template);
  }
  return template;
}
function cappedRange(start, stop, step = 1) {
  if (stop === undefined) { stop = start; start = 0; }
  if (![start, stop, step].every(Number.isInteger) || step === 0) throw new Error('range() takes integers and a step other than 0');
  if ((stop - start) / step > rangeItems) throw new Error('range() of more than ' + rangeItems + ' numbers');
  const numbers = [];
  for (let i = start; step > 0 ? i < stop : i > stop; i += step) numbers.push(i);
  return numbers;
}
const MONTHS = ['January', 'February', 'March', 'April', 'May', 'June', 'July', 'August', 'September', 'October', 'November', 'December'];
const DAYS = ['Sunday', 'Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday'];
const two = (number) => String(number).padStart(2, '0');
function strftime_now(format) {
  const now = new Date();
  const fields = {
    Y: String(now.getFullYear()), y: two(now.getFullYear() % 100), m: two(now.getMonth() + 1), d: two(now.getDate()),
    H: two(now.getHours()), I: two(now.getHours() % 12 || 12), M: two(now.getMinutes()), S: two(now.getSeconds()),
    p: now.getHours() < 12 ? 'AM' : 'PM', B: MONTHS[now.getMonth()], b: MONTHS[now.getMonth()].slice(0, 3),
    A: DAYS[now.getDay()], a: DAYS[now.getDay()].slice(0, 3), '%': '%',
  };
  return String(format).replace(/%-?(.)/g, (whole, letter) => {
    const field = fields[letter];
    if (field === undefined) return whole;
    return whole[1] === '-' ? field.replace(/^0(?=.)/, '') : field;
  });
}
function render({ template, variables }) {
  let refusal;
  const raise_exception = (message) => { refusal = String(message); throw new Error(refusal); };
  try {
    const program = parse(template).parsed;
    const environment = new Environment();
    // Template.render would declare its own unbounded range first, and a name can be declared once.
    const globals = { true: true, True: true, false: false, False: false, none: null, None: null };
    const functions = { range: cappedRange, raise_exception, strftime_now };
    for (const [name, value] of Object.entries({ ...variables, ...globals, ...functions })) environment.set(name, value);
    const text = new Interpreter(environment).run(program).value;
    if (text.length > outputChars) return { kind: 'exceeded', limit: 'output of ' + outputChars + ' characters' };
    return { kind: 'rendered', text };
  } catch (error) {
    if (refusal !== undefined) return { kind: 'refused', message: refusal };
    return { kind: 'failed', message: String(error && error.message) };
  }
}
parentPort.on('message', (job) => parentPort.postMessage({ id: job.id, outcome: render(job) }));
parentPort.postMessage({ id: ${STARTED} });
`;

/**
 * Renders one template at a time in a thread of its own. The thread is started by the first job, is killed when a job overruns
 * time or memory, and the next job gets a fresh one.
 */
export class TemplateWorker {
  readonly #limits: TemplateLimits;
  readonly #queue: Job[] = [];
  #worker: Worker | null = null;
  #hasStarted = false;
  #current: Job | null = null;
  #timer: NodeJS.Timeout | null = null;
  #nextId = 1;
  #closed = false;

  constructor(limits: TemplateLimits) {
    this.#limits = limits;
  }

  /** `variables` must be structured-cloneable. Never rejects. */
  run(template: string, variables: Readonly<Record<string, unknown>>): Promise<TemplateOutcome> {
    return new Promise((resolve) => {
      this.#queue.push({ id: this.#nextId++, template, variables, resolve });
      this.#startNext();
    });
  }

  async close(): Promise<void> {
    this.#closed = true;
    const worker = this.#worker;
    this.#worker = null;
    this.#finish({ kind: 'failed', message: 'the server is closing' });
    for (const job of this.#queue.splice(0))
      job.resolve({ kind: 'failed', message: 'the server is closing' });
    await worker?.terminate();
  }

  #startNext(): void {
    if (this.#current !== null) return;
    const job = this.#queue.shift();
    if (job === undefined) return;
    if (this.#closed) {
      job.resolve({ kind: 'failed', message: 'the server is closing' });
      return;
    }
    this.#current = job;
    const worker = (this.#worker ??= this.#spawn());
    worker.ref();
    if (this.#hasStarted) this.#startTimer();
    try {
      worker.postMessage({ id: job.id, template: job.template, variables: job.variables });
    } catch (error) {
      this.#finish({ kind: 'failed', message: (error as Error).message });
      this.#startNext();
    }
  }

  #startTimer(): void {
    this.#timer = setTimeout(() => this.#kill(`time of ${this.#limits.timeMs} ms`), this.#limits.timeMs);
  }

  #spawn(): Worker {
    this.#hasStarted = false;
    const jinjaPath = createRequire(import.meta.url).resolve('@huggingface/jinja');
    const worker = new Worker(WORKER_PROGRAM, {
      eval: true,
      workerData: { jinjaPath, limits: this.#limits },
      resourceLimits: { maxOldGenerationSizeMb: this.#limits.memoryMiB, stackSizeMb: 4 },
      execArgv: [],
      env: {},
    });
    worker.on('message', (message: { id: number; outcome: TemplateOutcome }) => {
      if (worker !== this.#worker) return;
      if (message.id === STARTED) {
        this.#hasStarted = true;
        if (this.#current !== null) this.#startTimer();
      }
      if (message.id !== this.#current?.id) return;
      worker.unref();
      this.#finish(message.outcome);
      this.#startNext();
    });
    worker.on('error', (error: NodeJS.ErrnoException) => {
      if (worker !== this.#worker) return;
      this.#worker = null;
      const isMemory = error.code === 'ERR_WORKER_OUT_OF_MEMORY';
      const limit = `memory of ${this.#limits.memoryMiB} MiB`;
      this.#finish(isMemory ? { kind: 'exceeded', limit } : { kind: 'failed', message: error.message });
      this.#startNext();
    });
    return worker;
  }

  #kill(limit: string): void {
    const worker = this.#worker;
    this.#worker = null;
    void worker?.terminate();
    this.#finish({ kind: 'exceeded', limit });
    this.#startNext();
  }

  #finish(outcome: TemplateOutcome): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    const job = this.#current;
    this.#current = null;
    job?.resolve(outcome);
  }
}
