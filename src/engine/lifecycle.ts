import { UserError } from '../errors.js';
import type { Scheduler } from './scheduler.js';
import type { RequestState, Sequence } from './sequence.js';
import type { EngineObserver, FinishReason, RequestCounters } from './types.js';

/** The requests under way, and the ways they end. */
export class Lifecycle {
  readonly live = new Map<string, RequestState>();
  /** Those that never ran, by arrival. */
  readonly queued = new Set<RequestState>();
  queuedTokens = 0;
  private readonly counts = { accepted: 0, finished: 0, cancelled: 0, failed: 0 };

  constructor(
    private readonly scheduler: Scheduler,
    private readonly observer: EngineObserver | undefined,
    private readonly clock: () => number,
    /** Called when no request is live. */
    private readonly onIdle: () => void,
  ) {}

  get counters(): RequestCounters {
    return this.counts;
  }

  accept(request: RequestState): void {
    this.counts.accepted++;
    this.live.set(request.id, request);
    this.queued.add(request);
    this.queuedTokens += request.prompt.length;
    this.scheduler.add(request.sequences[0] as Sequence);
  }

  /** The request got its first place. */
  start(request: RequestState, cachedTokens: number): void {
    if (request.isStarted) return;
    request.isStarted = true;
    request.scheduledAt = this.clock();
    this.unqueue(request);
    request.queue.pushStarted(cachedTokens);
  }

  /** The prompt is computed: the choices that share it join the queue. */
  releaseChoices(request: RequestState): void {
    for (const sequence of request.sequences) if (sequence.phase === 'held') this.scheduler.add(sequence);
  }

  /** One choice is complete and its last delta handed out. */
  finishSequence(sequence: Sequence, reason: FinishReason): void {
    const { request } = sequence;
    this.scheduler.remove(sequence);
    request.numFinished++;
    request.hasHitLength ||= reason === 'length';
    if (request.numFinished < request.sequences.length) return;
    this.counts.finished++;
    this.end(request, request.hasHitLength ? 'length' : 'stop');
    request.queue.end();
  }

  cancel(request: RequestState): void {
    if (!this.live.has(request.id)) return;
    for (const sequence of request.sequences) {
      if (sequence.phase === 'finished') continue;
      this.scheduler.remove(sequence);
      request.queue.pushDelta({
        index: sequence.index,
        tokenIds: [],
        text: '',
        finishReason: 'abort',
        stopReason: null,
      });
    }
    this.counts.cancelled++;
    this.end(request, 'abort');
    request.queue.end();
  }

  fail(request: RequestState, error: Error): void {
    if (!this.live.has(request.id)) return;
    for (const sequence of request.sequences) {
      if (sequence.phase !== 'finished') this.scheduler.remove(sequence);
    }
    this.counts.failed++;
    this.end(request, 'error');
    request.queue.fail(error);
  }

  cancelAll(): void {
    for (const request of [...this.live.values()]) this.cancel(request);
  }

  /** Fails the requests that have queued for longer than `seconds`. */
  expire(seconds: number): void {
    const now = this.clock();
    for (const request of this.queued) {
      const waited = now - request.arrivedAt;
      if (waited <= seconds) return;
      const message = `Request ${request.id} waited ${waited.toFixed(1)} s for a place, longer than ${seconds} s.`;
      const suggestions = ['Try again later.', 'Raise --max-waiting-time or --max-num-seqs.'];
      this.fail(request, new UserError('overloaded', message, { suggestions }));
    }
  }

  private unqueue(request: RequestState): void {
    if (this.queued.delete(request)) this.queuedTokens -= request.prompt.length;
  }

  private end(request: RequestState, reason: FinishReason): void {
    this.unqueue(request);
    this.live.delete(request.id);
    request.unlisten();
    const finished = this.clock();
    this.observer?.onFinish({
      reason,
      promptTokens: request.prompt.length,
      generatedTokens: request.numGenerated,
      params: request.params,
      timings: {
        arrival: request.arrivedAt,
        scheduled: request.scheduledAt ?? finished,
        firstToken: request.firstTokenAt,
        finished,
      },
    });
    if (this.live.size === 0) this.onIdle();
  }
}
