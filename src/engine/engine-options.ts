import { UserError } from '../errors.js';
import type { ModelRunner } from '../runtime/model-runner.js';
import type { EngineInfo, EngineObserver, TextStreamFactory } from './types.js';

export interface EngineOptions {
  /** Canonical scheme or configuration name. */
  readonly scheme: string;
  readonly executionProvider: string;
  /** Most sequences in a step. */
  readonly maxNumSeqs: number;
  /** Most tokens in a step. */
  readonly maxNumBatchedTokens: number;
  readonly maxModelLen: number;
  /** Requests that may queue beyond those a free place awaits. */
  readonly maxWaiting: number;
  /** Prompt tokens that may queue; one request may always wait, however long. */
  readonly maxWaitingTokens: number;
  /** A request that did not start by then fails as `overloaded`. Absent: it waits for ever. */
  readonly maxWaitingSeconds?: number;
  readonly enablePrefixCaching: boolean;
  readonly eosTokenIds: readonly number[];
  readonly createTextStream: TextStreamFactory;
  readonly observer?: EngineObserver;
  /** Monotonic seconds. */
  readonly clock?: () => number;
  /** Most tokens of one prompt in a step; absent or 0: only bounded by the step. */
  readonly longPrefillTokenThreshold?: number;
  /** Most prompts that may be between two chunks; absent: no bound. */
  readonly maxNumPartialPrefills?: number;
}

type Range = readonly [least: number, most: number];

function checkRange(name: string, value: number, [least, most]: Range, why = ''): void {
  if (Number.isInteger(value) && value >= least && value <= most) return;
  throw new UserError(
    'invalid_config',
    `Expected ${name} to be a whole number from ${least} to ${most}${why} but received ${value}.`,
    { param: name, suggestions: [`Set ${name} within ${least} .. ${most}.`] },
  );
}

/** Refuses a combination of limits that the runner cannot serve. UserError `invalid_config`. */
export function checkOptions(runner: ModelRunner, options: EngineOptions): EngineInfo {
  const { maxNumSeqs, maxNumBatchedTokens, maxModelLen } = options;
  const most = Number.MAX_SAFE_INTEGER;
  checkRange('maxNumSeqs', maxNumSeqs, [1, runner.maxLogitRows], ' (logits rows of a step)');
  const maxTokens = runner.maxBatchedTokens;
  checkRange(
    'maxNumBatchedTokens',
    maxNumBatchedTokens,
    [maxNumSeqs, maxTokens],
    ' (maxNumSeqs to the runner limit)',
  );
  checkRange('maxModelLen', maxModelLen, [1, runner.maxModelLen], ' (what the model addresses)');
  checkRange('maxWaiting', options.maxWaiting, [0, most]);
  checkRange('maxWaitingTokens', options.maxWaitingTokens, [0, most]);
  checkRange('longPrefillTokenThreshold', options.longPrefillTokenThreshold ?? 0, [0, most]);
  checkRange('maxNumPartialPrefills', options.maxNumPartialPrefills ?? 1, [1, most]);
  const seconds = options.maxWaitingSeconds;
  if (seconds !== undefined && !(seconds > 0)) {
    throw new UserError('invalid_config', `Expected maxWaitingSeconds above 0 but received ${seconds}.`, {
      param: 'maxWaitingSeconds',
      suggestions: ['Leave it out to let requests wait.'],
    });
  }
  return {
    scheme: options.scheme,
    executionProvider: options.executionProvider,
    maxModelLen,
    vocabSize: runner.vocabSize,
    blockSize: runner.blockSize,
    numBlocks: runner.numBlocks,
    maxNumSeqs,
    maxNumBatchedTokens,
  };
}
