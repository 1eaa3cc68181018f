import { randomBytes } from 'node:crypto';
import { performance } from 'node:perf_hooks';
import { counted } from '../counted.js';
import { BugError, FdqError, UserError } from '../errors.js';
import type { ModelRunner } from '../runtime/model-runner.js';
import { BlockManager, PrefixHasher } from './block-manager.js';
import { checkOptions, type EngineOptions } from './engine-options.js';
import { Lifecycle } from './lifecycle.js';
import { OutputQueue } from './output-queue.js';
import { checkRequest } from './request-check.js';
import { Scheduler, type StepPlan } from './scheduler.js';
import { choiceSeed, RequestState, Sequence } from './sequence.js';
import { StepBatchBuilder } from './step-batch.js';
import { StepResults } from './step-results.js';
import type { Engine, EngineInfo, EngineOutput, EngineStats, GenerationRequest } from './types.js';

const SEED_BYTES = 8;
/** Longest delay a Node timer can have. */
const MAX_TIMER_MS = 2 ** 31 - 1;

/** Throws UserError `invalid_config` when the runner cannot serve the limits. `close` closes the runner. */
export function createEngine(runner: ModelRunner, options: EngineOptions): BatchEngine {
  return new BatchEngine(runner, options);
}

/** Steps all running requests together through one `ModelRunner`. */
export class BatchEngine implements Engine {
  readonly info: EngineInfo;
  readonly blocks: BlockManager;
  readonly scheduler: Scheduler;
  readonly lifecycle: Lifecycle;
  private readonly hasher: PrefixHasher;
  private readonly batches: StepBatchBuilder;
  private readonly results: StepResults;
  private readonly clock: () => number;
  private readonly idleWaiters: (() => void)[] = [];
  private numSequences = 0;
  private plan: StepPlan | null = null;
  private loop: Promise<void> | null = null;
  private death: FdqError | null = null;
  private isShuttingDown = false;
  private closing: Promise<void> | null = null;

  constructor(
    private readonly runner: ModelRunner,
    private readonly options: EngineOptions,
  ) {
    this.info = checkOptions(runner, options);
    this.clock = options.clock ?? (() => performance.now() / 1000);
    const eosTokenIds = new Set(options.eosTokenIds);
    const { vocabSize, maxLogitRows } = runner;
    const longest = options.longPrefillTokenThreshold ?? 0;
    const limits = {
      ...this.info,
      vocabSize,
      maxLogitRows,
      longPrefillTokenThreshold: longest > 0 ? longest : Number.POSITIVE_INFINITY,
      maxNumPartialPrefills: options.maxNumPartialPrefills ?? Number.POSITIVE_INFINITY,
    };
    this.blocks = new BlockManager(runner.numBlocks, runner.blockSize);
    this.hasher = new PrefixHasher(runner.blockSize);
    this.scheduler = new Scheduler(limits, this.blocks, this.hasher);
    this.batches = new StepBatchBuilder(limits, eosTokenIds);
    const { observer, createTextStream } = options;
    const { scheduler, clock } = this;
    this.lifecycle = new Lifecycle(scheduler, observer, clock, () => this.notifyIdle());
    const { lifecycle } = this;
    this.results = new StepResults({ scheduler, lifecycle, eosTokenIds, createTextStream, observer, clock });
  }

  get alive(): boolean {
    return this.death === null && this.closing === null;
  }

  stats(): EngineStats {
    return {
      running: this.scheduler.running.size,
      waiting: this.scheduler.waiting.size,
      kvBlocksUsed: this.blocks.used,
      kvBlocksTotal: this.blocks.numBlocks,
      requests: { ...this.lifecycle.counters, live: this.lifecycle.live.size },
    };
  }

  generate(source: GenerationRequest, signal?: AbortSignal): AsyncIterable<EngineOutput> {
    this.checkAccepting();
    if (this.lifecycle.live.has(source.id)) {
      throw new UserError('invalid_request', `Expected a new request id but ${source.id} is under way.`, {
        suggestions: ['Use a unique request id.'],
      });
    }
    const maxGenerated = checkRequest(source, this.info);
    this.checkQueue(source.promptTokenIds.length);
    const request = this.createRequest(source, maxGenerated);
    this.lifecycle.accept(request);
    if (signal !== undefined) this.listen(request, signal);
    this.loop ??= this.run();
    return request.queue;
  }

  async drain(graceMs: number): Promise<void> {
    this.isShuttingDown = true;
    if (this.lifecycle.live.size === 0) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, Math.min(graceMs, MAX_TIMER_MS));
      this.idleWaiters.push(() => {
        clearTimeout(timer);
        resolve();
      });
    });
    this.lifecycle.cancelAll();
  }

  close(): Promise<void> {
    this.isShuttingDown = true;
    this.closing ??= this.shutDown();
    return this.closing;
  }

  private async shutDown(): Promise<void> {
    this.lifecycle.cancelAll();
    await this.loop;
    await this.runner.close();
  }

  private checkAccepting(): void {
    if (this.death !== null) {
      throw new UserError('engine_dead', `The engine stopped after a failure: ${this.death.message}`, {
        cause: this.death,
        suggestions: ['Restart the server.'],
      });
    }
    if (this.isShuttingDown) {
      throw new UserError('shutting_down', 'The engine is shutting down and takes no new requests.', {
        suggestions: ['Send the request to another server, or again after the restart.'],
      });
    }
  }

  private checkQueue(promptTokens: number): void {
    const { maxWaiting, maxWaitingTokens, maxNumSeqs } = this.options;
    const { queued, queuedTokens } = this.lifecycle;
    const places = maxWaiting + Math.max(0, maxNumSeqs - this.scheduler.running.size);
    if (queued.size >= places) {
      const message = `${counted(maxNumSeqs, 'place is', 'places are')} taken and the queue of ${maxWaiting} is full.`;
      throw new UserError('overloaded', message, {
        suggestions: ['Try again later.', 'Start the server with a longer queue: --max-concurrency.'],
      });
    }
    if (queued.size > 0 && queuedTokens + promptTokens > maxWaitingTokens) {
      const message =
        `${queuedTokens} prompt tokens are queued; ${promptTokens} more would exceed ` +
        `the limit of ${maxWaitingTokens}.`;
      throw new UserError('overloaded', message, {
        suggestions: ['Try again later.', 'Send shorter prompts.'],
      });
    }
  }

  private createRequest(source: GenerationRequest, maxGenerated: number): RequestState {
    const queue = new OutputQueue(() => this.lifecycle.cancel(request));
    const request: RequestState = new RequestState(source, queue, this.clock(), maxGenerated);
    const seed = source.params.seed ?? randomBytes(SEED_BYTES).readBigUInt64LE();
    for (let index = 0; index < source.params.n; index++) {
      request.sequences.push(new Sequence(request, index, this.numSequences++, choiceSeed(seed, index)));
    }
    if (this.options.enablePrefixCaching) {
      const { cacheSalt } = source;
      request.rootDigest = this.hasher.root(cacheSalt === undefined ? 'open' : 'salted', cacheSalt ?? '');
    } else if (source.params.n > 1) {
      // Choices of one request share their prompt all the same.
      request.rootDigest = this.hasher.root('private', String(this.numSequences));
    } else {
      return request;
    }
    request.promptDigests = this.hasher.chain(request.rootDigest, request.prompt);
    return request;
  }

  private listen(request: RequestState, signal: AbortSignal): void {
    const cancel = (): void => this.lifecycle.cancel(request);
    if (signal.aborted) {
      cancel();
      return;
    }
    signal.addEventListener('abort', cancel, { once: true });
    request.unlisten = () => signal.removeEventListener('abort', cancel);
  }

  private async run(): Promise<void> {
    try {
      // Requests of the same turn of the event loop start together.
      await nextTurn();
      while (this.lifecycle.live.size > 0) await this.step();
    } catch (error) {
      this.die(error);
    } finally {
      this.loop = null;
    }
  }

  private async step(): Promise<void> {
    const { observer, maxWaitingSeconds } = this.options;
    if (maxWaitingSeconds !== undefined) this.lifecycle.expire(maxWaitingSeconds);
    this.plan = this.scheduler.schedule();
    const { shares, admissions, numPreempted } = this.plan;
    for (let count = 0; count < numPreempted; count++) observer?.onPreemption();
    for (const { sequence, cachedTokens } of admissions) this.announce(sequence, cachedTokens);
    if (shares.length === 0) {
      if (admissions.length > 0 || this.lifecycle.live.size === 0) return;
      throw new BugError(`${this.lifecycle.live.size} requests are live but none can be scheduled`);
    }
    const began = this.clock();
    // The turn of the event loop in between serves I/O while the step runs.
    const [result] = await Promise.all([this.runner.step(this.batches.build(shares)), nextTurn()]);
    const generatedTokens = this.results.deliver(shares, result);
    this.plan = null;
    if (observer === undefined) return;
    const promptTokens = shares.reduce((sum, { sequence, start, numTokens }) => {
      return sum + Math.max(0, Math.min(numTokens, sequence.request.prompt.length - start));
    }, 0);
    observer.onStep({ promptTokens, generatedTokens, seconds: this.clock() - began });
  }

  private announce(sequence: Sequence, cachedTokens: number): void {
    const { request } = sequence;
    if (!request.isStarted) {
      this.lifecycle.start(request, cachedTokens);
      if (this.options.enablePrefixCaching) {
        this.options.observer?.onPrefixQuery(request.prompt.length, cachedTokens);
      }
    }
    if (sequence.goal === 0) this.results.finishScored(sequence);
  }

  private die(reason: unknown): void {
    const error = reason instanceof FdqError ? reason : modelFailed(reason);
    this.death = error;
    for (const { sequence } of this.plan?.shares ?? []) this.lifecycle.fail(sequence.request, error);
    this.plan = null;
    const dead = new UserError('engine_dead', `The engine stopped after a failure: ${error.message}`, {
      cause: error,
      suggestions: ['Restart the server.'],
    });
    for (const request of [...this.lifecycle.live.values()]) this.lifecycle.fail(request, dead);
  }

  private notifyIdle(): void {
    for (const waiter of this.idleWaiters.splice(0)) waiter();
  }
}

function modelFailed(cause: unknown): UserError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new UserError('runtime_failed', `The model failed: ${reason}`, {
    cause,
    suggestions: ['Restart the server; if it happens again, report it with this message.'],
  });
}

function nextTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
