import { createRequire } from 'node:module';
import { Worker } from 'node:worker_threads';
import { BugError } from '../errors.js';

interface Waiting {
  readonly resolve: (ids: number[]) => void;
  readonly reject: (error: Error) => void;
}

interface Answer {
  readonly id: number;
  /** -1 where the library has no id. */
  readonly ids?: Int32Array;
  readonly error?: string;
}

/** Text, for the reason `TemplateWorker` gives. It reads the files itself: cloning a vocabulary would stop the caller. */
const WORKER_PROGRAM = `
const { readFileSync } = require('node:fs');
const { join } = require('node:path');
const { parentPort, workerData } = require('node:worker_threads');
const { Tokenizer } = require(workerData.libraryPath);
function read(file, fallback) {
  try {
    return JSON.parse(readFileSync(join(workerData.dir, file), 'utf8'));
  } catch (error) {
    if (fallback !== undefined && error.code === 'ENOENT') return fallback;
    throw error;
  }
}
const tokenizer = new Tokenizer(read('tokenizer.json'), read('tokenizer_config.json', {}));
parentPort.on('message', ({ id, text, addSpecialTokens }) => {
  try {
    const { ids } = tokenizer.encode(text, { add_special_tokens: addSpecialTokens });
    const answer = Int32Array.from(ids, (one) => one ?? -1);
    parentPort.postMessage({ id, ids: answer }, [answer.buffer]);
  } catch (error) {
    parentPort.postMessage({ id, error: String(error && error.message) });
  }
});
`;

/** Encodes long texts in a thread that is started by the first one, so that they stop neither streams nor probes. */
export class EncodeWorker {
  readonly #dir: string;
  readonly #waiting = new Map<number, Waiting>();
  #worker: Worker | null = null;
  #nextId = 1;

  constructor(dir: string) {
    this.#dir = dir;
  }

  encode(text: string, addSpecialTokens: boolean): Promise<number[]> {
    const worker = (this.#worker ??= this.#spawn());
    const id = this.#nextId++;
    worker.ref();
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      worker.postMessage({ id, text, addSpecialTokens });
    });
  }

  async close(): Promise<void> {
    const worker = this.#worker;
    this.#fail(new BugError('The tokenizer was closed while it worked.'));
    await worker?.terminate();
  }

  #spawn(): Worker {
    const libraryPath = createRequire(import.meta.url).resolve('@huggingface/tokenizers');
    const worker = new Worker(WORKER_PROGRAM, {
      eval: true,
      workerData: { libraryPath, dir: this.#dir },
      execArgv: [],
      env: {},
    });
    worker.on('message', ({ id, ids, error }: Answer) => {
      const waiting = this.#waiting.get(id);
      this.#waiting.delete(id);
      if (this.#waiting.size === 0) worker.unref();
      if (ids === undefined) waiting?.reject(new BugError(`The tokenizer failed: ${error ?? 'no answer'}.`));
      else waiting?.resolve([...ids].filter((one) => one >= 0));
    });
    worker.on('error', (cause) => {
      if (worker === this.#worker) this.#fail(new BugError('The tokenizer thread died.', cause));
    });
    return worker;
  }

  #fail(error: Error): void {
    this.#worker = null;
    for (const { reject } of this.#waiting.values()) reject(error);
    this.#waiting.clear();
  }
}
