/**
 * The process that loads one model and measures it, so that memory and load time are those of this model alone.
 * It ends when the process that started it does.
 */
import { readFileSync } from 'node:fs';
import process from 'node:process';
import { BugError } from '../../errors.js';
import { createEngine, type BatchEngine } from '../../engine/engine.js';
import { loadModel, type LoadedModel } from '../../load/load-model.js';
import { RoundMeter } from './measure-round.js';
import type { SpeedLoadOptions } from './plan.js';
import { toPlainError, type LoadProgress, type WorkerReply, type WorkerRequest } from './protocol.js';

const KIB = 1024;

const ended = new AbortController();
let engine: BatchEngine | undefined;
let meter: RoundMeter | undefined;

process.on('message', (request: WorkerRequest) => {
  void answer(request).then(send, (error: unknown) => send({ kind: 'failed', error: toPlainError(error) }));
});
process.on('disconnect', () => {
  ended.abort();
  void engine?.close();
});
// Ctrl-C, and the SIGTERM of some supervisors, reach the whole group of processes; the parent decides what becomes of
// this one, which would otherwise look as if it had died of itself.
process.on('SIGINT', () => undefined);
process.on('SIGTERM', () => undefined);

async function answer(request: WorkerRequest): Promise<WorkerReply> {
  if (request.kind === 'load') return load(request.options);
  if (meter === undefined) throw new BugError('measuring before loading');
  const sample = await meter.measure(request.what, ended.signal);
  return { kind: 'measured', sample, peakRssBytes: peakRssBytes() };
}

async function load(options: SpeedLoadOptions): Promise<WorkerReply> {
  const loaded = await loadModel(
    { ...options, signal: ended.signal },
    {
      phase: (name, state, detail) => {
        if (name === 'quantize' && state === 'progress') send({ kind: 'progress', ...detail });
      },
      warn: () => undefined, // said when it was planned
    },
  );
  engine = startEngine(loaded);
  meter = new RoundMeter(engine);
  return { kind: 'loaded', seconds: loaded.seconds };
}

function startEngine({ runner, scheme, memory }: LoadedModel): BatchEngine {
  return createEngine(runner, {
    scheme,
    executionProvider: 'cpu',
    maxNumSeqs: memory.maxNumSeqs,
    maxNumBatchedTokens: memory.maxBatchedTokens,
    maxModelLen: memory.maxModelLen,
    maxWaiting: memory.maxNumSeqs,
    maxWaitingTokens: Number.MAX_SAFE_INTEGER,
    enablePrefixCaching: true,
    eosTokenIds: [],
    createTextStream: () => ({ push: () => '', end: () => '' }),
  });
}

/** Of this program; what getrusage says includes the program that started it. */
function peakRssBytes(): number {
  try {
    const kibibytes = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1];
    if (kibibytes !== undefined) return Number(kibibytes) * KIB;
  } catch {
    // no such file system
  }
  return process.resourceUsage().maxRSS * KIB;
}

function send(message: WorkerReply | LoadProgress): void {
  if (process.connected) process.send?.(message);
}
