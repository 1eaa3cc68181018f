import { BugError, FdqError, UserError } from '../errors.js';
import type { SamplingResult } from '../runtime/addon.js';
import type { Lifecycle } from './lifecycle.js';
import { readLogprob } from './logprobs.js';
import type { Scheduler } from './scheduler.js';
import type { RequestState, Sequence, StepShare } from './sequence.js';
import { StopChecker, type TokenOutcome } from './stop.js';
import type { EngineObserver, TextStreamFactory } from './types.js';

export interface StepResultsOptions {
  readonly scheduler: Scheduler;
  readonly lifecycle: Lifecycle;
  readonly eosTokenIds: ReadonlySet<number>;
  readonly createTextStream: TextStreamFactory;
  readonly observer: EngineObserver | undefined;
  readonly clock: () => number;
}

/** Hands the results of a step to the requests they belong to. What fails one request fails no other. */
export class StepResults {
  constructor(private readonly options: StepResultsOptions) {}

  /** Returns the number of tokens generated. */
  deliver(shares: readonly StepShare[], result: SamplingResult): number {
    const now = this.options.clock();
    let numGenerated = 0;
    let row = 0;
    for (const share of shares) {
      // A sequence cancelled during the step has given its blocks back and wants nothing of it.
      if (share.sequence.phase === 'running' && this.deliverShare(share, result, row, now)) numGenerated++;
      row += share.numScores + (share.isDrawing ? 1 : 0);
    }
    return numGenerated;
  }

  /** Ends a sequence that has nothing to compute, or nothing more after its prompt was scored. */
  finishScored(sequence: Sequence): void {
    const { request, index } = sequence;
    const { lifecycle } = this.options;
    this.sendScores(request);
    lifecycle.releaseChoices(request);
    request.queue.pushDelta({ index, tokenIds: [], text: '', finishReason: 'length', stopReason: null });
    lifecycle.finishSequence(sequence, 'length');
  }

  /** Whether a token was generated. */
  private deliverShare(share: StepShare, result: SamplingResult, firstRow: number, now: number): boolean {
    const { sequence } = share;
    const { request } = sequence;
    this.options.scheduler.commit(share);
    for (let score = 0; score < share.numScores; score++) {
      const expected = request.prompt[share.scoreStart + score + 1];
      if (result.ids[firstRow + score] !== expected) {
        this.options.lifecycle.fail(request, failedSample(sequence));
        return false;
      }
      const numTop = request.params.promptLogprobs ?? 0;
      request.promptScores?.push(readLogprob(result, firstRow + score, numTop));
    }
    if (share.isDrawing) return this.acceptToken(sequence, result, firstRow + share.numScores, now);
    if (request.params.maxTokens === 0 && sequence.numComputed === sequence.goal) this.finishScored(sequence);
    return false;
  }

  private acceptToken(sequence: Sequence, result: SamplingResult, row: number, now: number): boolean {
    const { request, index } = sequence;
    const { lifecycle } = this.options;
    const id = result.ids[row] ?? -1;
    if (id < 0) {
      lifecycle.fail(request, failedSample(sequence));
      return false;
    }
    this.sendScores(request);
    lifecycle.releaseChoices(request);
    sequence.append(id);
    request.numGenerated++;
    this.observeToken(sequence, now);
    const outcome = this.decode(sequence, id);
    if (outcome === null) return true;
    const { logprobs } = request.params;
    request.queue.pushDelta({
      index,
      tokenIds: [id],
      ...outcome,
      ...(logprobs === undefined ? {} : { logprobs: [readLogprob(result, row, logprobs)] }),
    });
    if (outcome.finishReason !== null) lifecycle.finishSequence(sequence, outcome.finishReason);
    return true;
  }

  /** Null when the text could not be made: then the request has failed. */
  private decode(sequence: Sequence, id: number): TokenOutcome | null {
    try {
      return this.checkerOf(sequence).accept(id);
    } catch (error) {
      const reason =
        error instanceof FdqError ? error : new BugError(`token ${id} could not be decoded`, error);
      this.options.lifecycle.fail(sequence.request, reason);
      return null;
    }
  }

  private checkerOf(sequence: Sequence): StopChecker {
    if (sequence.checker !== null) return sequence.checker;
    const { request } = sequence;
    const { skipSpecialTokens, spacesBetweenSpecialTokens } = request.params;
    const { promptTokenIds } = request.source;
    const text = this.options.createTextStream({
      skipSpecialTokens,
      spacesBetweenSpecialTokens,
      promptTokenIds,
    });
    const { eosTokenIds } = this.options;
    sequence.checker = new StopChecker(request.params, eosTokenIds, request.maxGenerated, text);
    return sequence.checker;
  }

  private observeToken(sequence: Sequence, now: number): void {
    const { request } = sequence;
    const { observer } = this.options;
    if (sequence.numOutput > 1) observer?.onInterToken(now - sequence.lastTokenAt);
    sequence.lastTokenAt = now;
    if (request.firstTokenAt !== null) return;
    request.firstTokenAt = now;
    observer?.onFirstToken(now - request.arrivedAt);
  }

  private sendScores(request: RequestState): void {
    if (request.promptScores === null || request.isScoreSent) return;
    request.isScoreSent = true;
    request.queue.pushPrompt(request.promptScores);
  }
}

function failedSample(sequence: Sequence): UserError {
  const { id, params } = sequence.request;
  const isRestricted = params.allowedTokenIds.length + params.badWords.length + params.logitBias.size > 0;
  const place = sequence.numTokens;
  if (isRestricted || sequence.numOutput < params.minTokens) {
    return new UserError(
      'invalid_request',
      `Request ${id} leaves no token to draw at position ${place}: each is excluded or has no probability.`,
      { suggestions: ['Relax allowed_token_ids, bad_words, logit_bias or min_tokens.'] },
    );
  }
  return new UserError(
    'runtime_failed',
    `The model gave request ${id} no usable logits at position ${place}.`,
    {
      suggestions: [
        'Check the checkpoint for damaged weights.',
        'Try another quantization or --dtype float32.',
      ],
    },
  );
}
