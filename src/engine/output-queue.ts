import type { ChoiceDelta, EngineOutput, FinishReason, TokenLogprob } from './types.js';

interface PendingDelta {
  readonly index: number;
  readonly tokenIds: number[];
  text: string;
  logprobs?: TokenLogprob[];
  finishReason: FinishReason | null;
  stopReason: string | number | null;
}

interface Reader {
  readonly resolve: (result: IteratorResult<EngineOutput, undefined>) => void;
  readonly reject: (error: Error) => void;
}

/**
 * Outputs of one request. Unread deltas of a choice are merged into one, so a slow reader costs no more than the
 * text it has not read, and never holds up the batch.
 */
export class OutputQueue implements AsyncIterableIterator<EngineOutput> {
  private readonly first: EngineOutput[] = [];
  private readonly deltas = new Map<number, PendingDelta>();
  private readonly readers: Reader[] = [];
  private isEnded = false;
  private failure: { readonly error: Error } | null = null;

  /** `onReturn`: the reader wants no more. */
  constructor(private readonly onReturn: () => void) {}

  [Symbol.asyncIterator](): this {
    return this;
  }

  next(): Promise<IteratorResult<EngineOutput, undefined>> {
    const value = this.take();
    if (value !== undefined) return Promise.resolve({ done: false, value });
    if (this.failure !== null) {
      const { error } = this.failure;
      this.failure = null;
      return Promise.reject(error);
    }
    if (this.isEnded) return Promise.resolve({ done: true, value: undefined });
    return new Promise((resolve, reject) => this.readers.push({ resolve, reject }));
  }

  return(): Promise<IteratorResult<EngineOutput, undefined>> {
    this.onReturn();
    this.first.length = 0;
    this.deltas.clear();
    this.failure = null;
    this.end();
    return Promise.resolve({ done: true, value: undefined });
  }

  pushStarted(cachedTokens: number): void {
    this.first.push({ kind: 'started', cachedTokens });
    this.serve();
  }

  pushPrompt(logprobs: readonly (TokenLogprob | null)[]): void {
    this.first.push({ kind: 'prompt', logprobs });
    this.serve();
  }

  pushDelta(delta: ChoiceDelta): void {
    const pending = this.deltas.get(delta.index);
    if (pending === undefined) {
      const { logprobs, ...rest } = delta;
      const copy: PendingDelta = { ...rest, tokenIds: [...delta.tokenIds] };
      if (logprobs !== undefined) copy.logprobs = [...logprobs];
      this.deltas.set(delta.index, copy);
    } else {
      for (const id of delta.tokenIds) pending.tokenIds.push(id);
      pending.text += delta.text;
      if (delta.logprobs !== undefined) (pending.logprobs ??= []).push(...delta.logprobs);
      pending.finishReason = delta.finishReason;
      pending.stopReason = delta.stopReason;
    }
    this.serve();
  }

  /** Nothing more comes; unread outputs stay readable. */
  end(): void {
    this.isEnded = true;
    this.serve();
    for (const reader of this.readers.splice(0)) reader.resolve({ done: true, value: undefined });
  }

  /** Readers get what is unread, then `error` once. */
  fail(error: Error): void {
    if (this.isEnded) return;
    this.isEnded = true;
    this.serve();
    const reader = this.readers.shift();
    if (reader === undefined) this.failure = { error };
    else reader.reject(error);
    this.end();
  }

  private serve(): void {
    while (this.readers.length > 0) {
      const value = this.take();
      if (value === undefined) return;
      this.readers.shift()?.resolve({ done: false, value });
    }
  }

  private take(): EngineOutput | undefined {
    const first = this.first.shift();
    if (first !== undefined) return first;
    for (const [index, choice] of this.deltas) {
      this.deltas.delete(index);
      return { kind: 'delta', choice };
    }
    return undefined;
  }
}
