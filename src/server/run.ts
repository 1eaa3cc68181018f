import { randomUUID } from 'node:crypto';
import type { FastifyReply, FastifyRequest } from 'fastify';
import type {
  ChoiceDelta,
  EngineOutput,
  GenerationRequest,
  SamplingParams,
  TokenLogprob,
} from '../engine/types.js';
import { counted } from '../counted.js';
import { FdqError, UserError } from '../errors.js';
import { abortOnDisconnect } from './context.js';
import type { RequestRecord, ServerContext } from './context.js';
import { startGeneration } from './generation.js';
import { retryHeaders, toFdqError } from './http-errors.js';
import { EventStream } from './sse.js';
import type { ServedModel } from './state.js';
import { UsageCounter } from './usage.js';

/** A validated request: what the engine gets and what its answer needs. */
export interface Job {
  readonly model: ServedModel;
  readonly prompts: readonly (readonly number[])[];
  /** Most tokens a choice of each prompt may have; absent: `params.maxTokens` for all. */
  readonly budgets?: readonly number[];
  readonly params: SamplingParams;
  readonly stream: boolean;
  readonly cacheSalt: string | undefined;
  readonly priority: number | undefined;
}

/** Told about the outputs in order; builds the answer. */
export interface OutputSink {
  onPromptLogprobs(prompt: number, logprobs: readonly (TokenLogprob | null)[]): void;
  onDelta(prompt: number, delta: ChoiceDelta): void;
}

/** A sink that also ends the response. */
export interface StreamSink extends OutputSink {
  onEnd(): void;
}

/** Nearly always the budgets are equal, and one object serves all prompts. */
function withBudget(params: SamplingParams, maxTokens = params.maxTokens): SamplingParams {
  if (maxTokens === params.maxTokens) return params;
  return { ...params, maxTokens, minTokens: Math.min(params.minTokens, maxTokens) };
}

function engineRequests(job: Job, keyHolder: string): GenerationRequest[] {
  const salt = [keyHolder, job.cacheSalt ?? ''].filter((part) => part !== '').join('\n');
  return job.prompts.map((promptTokenIds, i) => ({
    id: randomUUID(),
    promptTokenIds,
    params: withBudget(job.params, job.budgets?.[i]),
    ...(salt === '' ? {} : { cacheSalt: salt }),
    ...(job.priority === undefined ? {} : { priority: job.priority }),
  }));
}

function failureOf(delta: ChoiceDelta, context: ServerContext): FdqError | null {
  if (delta.finishReason === 'error')
    return new FdqError('runtime_failed', 'The engine failed on this request.');
  if (delta.finishReason !== 'abort') return null;
  return context.state.phase === 'draining'
    ? new UserError('shutting_down', 'The server shut down before the answer was complete.', {
        suggestions: ['Send the request again.'],
      })
    : new FdqError('aborted', 'The request was aborted.');
}

function overloaded(message: string): UserError {
  return new UserError('overloaded', message, {
    suggestions: ['Send the request again after the retry-after time.'],
  });
}

interface Counters {
  readonly usage: UsageCounter;
  readonly record: RequestRecord;
}

function handleOutput(
  prompt: number,
  output: EngineOutput,
  sink: OutputSink,
  counters: Counters,
): ChoiceDelta | null {
  switch (output.kind) {
    case 'started':
      counters.usage.cachedTokens += output.cachedTokens;
      return null;
    case 'prompt':
      sink.onPromptLogprobs(prompt, output.logprobs);
      return null;
    case 'delta':
      if (output.choice.tokenIds.length > 0) counters.record.firstTokenAt ??= performance.now();
      counters.usage.completionTokens += output.choice.tokenIds.length;
      counters.record.generatedTokens = counters.usage.completionTokens;
      return output.choice;
  }
}

/** Runs a job for one HTTP request, from admission to the last output. */
export class Run {
  readonly usage: UsageCounter;
  readonly #context: ServerContext;
  readonly #job: Job;
  readonly #record: RequestRecord;
  readonly #reply: FastifyReply;
  readonly #controller: AbortController;
  #queueTimer: NodeJS.Timeout | null = null;

  constructor(context: ServerContext, job: Job, request: FastifyRequest, reply: FastifyReply) {
    this.#context = context;
    this.#job = job;
    this.#record = request.record;
    this.#reply = reply;
    this.#controller = abortOnDisconnect(reply);
    this.usage = new UsageCounter(job.prompts.reduce((sum, ids) => sum + ids.length, 0));
    this.#record.stream = job.stream;
    this.#record.promptTokens = this.usage.promptTokens;
  }

  /**
   * Feeds all outputs to `sink`; the caller then sends the answer.
   * @throws what the engine throws; `aborted` when the client left.
   */
  async collect(sink: OutputSink): Promise<void> {
    await this.#track(async () => this.#consume(await this.#start(), sink));
  }

  /** Opens the event stream once the engine took the request and feeds the sink made for it. Errors after that are events. */
  async stream(makeSink: (events: EventStream) => StreamSink): Promise<FastifyReply> {
    await this.#track(async () => {
      const outputs = await this.#start();
      this.#throwIfGone();
      const events = new EventStream(this.#reply, this.#context.stream, () => {
        this.#controller.abort(new FdqError('aborted', 'The stream was not read.'));
      });
      try {
        const sink = makeSink(events);
        await this.#consume(outputs, sink);
        sink.onEnd();
        events.finish();
      } catch (error) {
        this.#failStream(events, error);
      }
    });
    return this.#reply;
  }

  async #track(work: () => Promise<void>): Promise<void> {
    const { state, maxConcurrency, maxWaitingMs } = this.#context;
    if (state.inFlight >= maxConcurrency) {
      throw overloaded(`The server already works on ${counted(state.inFlight, 'request')}.`);
    }
    state.inFlight += 1;
    if (maxWaitingMs !== null) {
      const expire = (): void =>
        this.#controller.abort(overloaded(`The request waited ${maxWaitingMs} ms in the queue.`));
      this.#queueTimer = setTimeout(expire, maxWaitingMs);
    }
    try {
      await work();
    } finally {
      this.#leaveQueue();
      state.inFlight -= 1;
    }
  }

  #leaveQueue(): void {
    if (this.#queueTimer !== null) clearTimeout(this.#queueTimer);
    this.#queueTimer = null;
  }

  #start(): ReturnType<typeof startGeneration> {
    this.#throwIfGone();
    const requests = engineRequests(this.#job, this.#record.keyHolder);
    // A stream that may still expire in the queue sends no headers yet, at most until a comment would be due.
    const { maxWaitingMs, stream } = this.#context;
    const holdMs = maxWaitingMs === null || !this.#job.stream ? 0 : stream.keepAliveMs;
    return startGeneration(this.#job.model.engine, requests, this.#controller, holdMs);
  }

  async #consume(outputs: Awaited<ReturnType<typeof startGeneration>>, sink: OutputSink): Promise<void> {
    const counters = { usage: this.usage, record: this.#record };
    try {
      for await (const { prompt, output } of outputs) {
        if (output.kind === 'started') this.#leaveQueue();
        const delta = handleOutput(prompt, output, sink, counters);
        if (delta === null) continue;
        this.#throwIfGone();
        const failure = failureOf(delta, this.#context);
        if (failure !== null) throw failure;
        sink.onDelta(prompt, delta);
      }
    } catch (error) {
      this.#throwIfGone();
      this.#controller.abort(error);
      throw error;
    }
    this.#throwIfGone();
  }

  #throwIfGone(): void {
    const { signal } = this.#controller;
    if (signal.aborted) throw signal.reason;
  }

  #failStream(events: EventStream, thrown: unknown): void {
    const error = toFdqError(thrown);
    this.#record.status = error.httpStatus;
    this.#record.errorCode = error.code;
    if (error.httpStatus >= 500)
      this.#context.logger.error({ err: error.cause ?? error, ...retryHeaders(error) }, 'stream failed');
    events.fail(error);
  }
}
