import { Worker } from 'node:worker_threads';
import { openWeightFile, type FileIdentity } from '../../hub/weight-file.js';
import type { WrittenTensor } from './weights-file.js';

/** Bytes that are worth a thread of their own. */
const BYTES_PER_THREAD = 64 << 20;

/**
 * The program of a digest thread. It is text, so that it starts the same from dist/ and from the TypeScript sources.
 * Threads take the next tensor off a shared counter until none is left or one does not match.
 */
const WORKER_PROGRAM = `
const { parentPort, workerData } = require('node:worker_threads');
const { readSync } = require('node:fs');
const { createHash } = require('node:crypto');
const { fd, tensors, next } = workerData;
const counter = new Int32Array(next);
const chunk = Buffer.alloc(1 << 20);
function digest({ offset, bytes }) {
  const hash = createHash('sha256');
  for (let done = 0; done < bytes; ) {
    const read = readSync(fd, chunk, 0, Math.min(chunk.length, bytes - done), offset + done);
    if (read === 0) return undefined;
    hash.update(chunk.subarray(0, read));
    done += read;
  }
  return hash.digest('hex');
}
let wrong;
for (;;) {
  const tensor = tensors[Atomics.add(counter, 0, 1)];
  if (tensor === undefined) break;
  if (digest(tensor) === tensor.sha256) continue;
  wrong = tensor.name;
  Atomics.store(counter, 0, tensors.length);
}
parentPort.postMessage(wrong);
`;

/**
 * Compares the bytes of tensors with their digests, on several threads.
 * @returns the name of a tensor that does not match, or undefined when all do
 * @throws UserError `invalid_checkpoint` when the file is not the one identified, or cannot be read
 */
export async function findDamagedTensor(
  file: FileIdentity,
  tensors: readonly WrittenTensor[],
  options: { readonly threads: number; readonly signal?: AbortSignal | undefined },
): Promise<string | undefined> {
  const handle = await openWeightFile(file.path, file);
  const totalBytes = tensors.reduce((sum, { bytes }) => sum + bytes, 0);
  const threads = Math.max(1, Math.min(options.threads, Math.ceil(totalBytes / BYTES_PER_THREAD)));
  const largestFirst = [...tensors].sort((a, b) => b.bytes - a.bytes);
  const workerData = { fd: handle.fd, tensors: largestFirst, next: new SharedArrayBuffer(4) };
  const workers = Array.from(
    { length: threads },
    () => new Worker(WORKER_PROGRAM, { eval: true, workerData }),
  );
  const stop = (): void => workers.forEach((worker) => void worker.terminate());
  options.signal?.addEventListener('abort', stop);
  try {
    const results = await Promise.all(workers.map(resultOf));
    options.signal?.throwIfAborted();
    return results.find((name) => name !== undefined);
  } finally {
    options.signal?.removeEventListener('abort', stop);
    // No thread may read from the descriptor after it is closed.
    await Promise.all(workers.map((worker) => worker.terminate()));
    await handle.close();
  }
}

function resultOf(worker: Worker): Promise<string | undefined> {
  return new Promise((resolve, reject) => {
    worker.once('message', (name: string | undefined) => resolve(name));
    worker.once('error', reject);
    worker.once('exit', () => resolve(undefined));
  });
}
