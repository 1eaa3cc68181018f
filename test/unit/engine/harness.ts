import { FdqError } from '../../../src/errors.js';
import { createEngine, type BatchEngine } from '../../../src/engine/engine.js';
import type { EngineOptions } from '../../../src/engine/engine-options.js';
import { checkInvariants } from '../../../src/engine/invariants.js';
import type {
  EngineObserver,
  EngineOutput,
  FinishReason,
  GenerationRequest,
  SamplingParams,
  TextStreamFactory,
  TokenLogprob,
} from '../../../src/engine/types.js';
import { GREEDY } from '../../../src/bench/greedy.js';
import { FakeRunner, type FakeRunnerOptions } from '../../helpers/fake-runner.js';

export const EOS = 0;

const PARAMS: SamplingParams = { ...GREEDY, maxTokens: 8, ignoreEos: true };

export function params(changes: Partial<SamplingParams> = {}): SamplingParams {
  return { ...PARAMS, ...changes };
}

let numRequests = 0;

export function request(
  promptTokenIds: readonly number[],
  changes: Partial<SamplingParams> = {},
  rest: Partial<GenerationRequest> = {},
): GenerationRequest {
  return { id: `r${numRequests++}`, promptTokenIds, params: params(changes), ...rest };
}

/** `length` ids that differ from those of another `salt`; never EOS. */
export function prompt(length: number, salt = 0): number[] {
  return Array.from({ length }, (_, i) => 1 + ((i * 7 + salt * 13 + (i >> 3)) % 40));
}

/** Each id is one word, so that text shows exactly which ids it is made of. */
export const wordStream: TextStreamFactory = () => ({ push: (id) => `<${id}>`, end: () => '' });

export interface Recorder extends EngineObserver {
  readonly steps: { promptTokens: number; generatedTokens: number }[];
  readonly finishes: Parameters<EngineObserver['onFinish']>[0][];
  readonly prefix: { queried: number; hit: number }[];
  firstTokens: number;
  interTokens: number;
  preemptions: number;
}

export interface Harness {
  readonly engine: BatchEngine;
  readonly runner: FakeRunner;
  readonly recorder: Recorder;
}

/** An engine whose books are checked after every step. */
export function harness(
  runnerOptions: FakeRunnerOptions = {},
  changes: Partial<EngineOptions> = {},
): Harness {
  const runner = new FakeRunner(runnerOptions);
  const recorder: Recorder = {
    steps: [],
    finishes: [],
    prefix: [],
    firstTokens: 0,
    interTokens: 0,
    preemptions: 0,
    onStep(step) {
      this.steps.push(step);
      checkInvariants(engine);
    },
    onFirstToken() {
      this.firstTokens++;
    },
    onInterToken() {
      this.interTokens++;
    },
    onPreemption() {
      this.preemptions++;
    },
    onPrefixQuery(queried, hit) {
      this.prefix.push({ queried, hit });
    },
    onFinish(finish) {
      this.finishes.push(finish);
    },
  };
  const engine = createEngine(runner, {
    scheme: 'none',
    executionProvider: 'cpu',
    maxNumSeqs: 8,
    maxNumBatchedTokens: Math.min(64, runner.maxBatchedTokens),
    maxModelLen: runner.maxModelLen,
    maxWaiting: 1000,
    maxWaitingTokens: 1_000_000,
    enablePrefixCaching: true,
    eosTokenIds: [EOS],
    createTextStream: wordStream,
    observer: recorder,
    ...changes,
  });
  return { engine, runner, recorder };
}

export interface Collected {
  readonly ids: number[];
  text: string;
  finishReason: FinishReason | null;
  stopReason: string | number | null;
  readonly logprobs: TokenLogprob[];
}

export interface CollectedRequest {
  readonly kinds: string[];
  readonly choices: Collected[];
  cachedTokens: number;
  promptLogprobs: readonly (TokenLogprob | null)[] | null;
}

/** Reads a request to its end. */
export async function collect(outputs: AsyncIterable<EngineOutput>): Promise<CollectedRequest> {
  const result: CollectedRequest = { kinds: [], choices: [], cachedTokens: -1, promptLogprobs: null };
  for await (const output of outputs) {
    result.kinds.push(output.kind);
    if (output.kind === 'started') result.cachedTokens = output.cachedTokens;
    else if (output.kind === 'prompt') result.promptLogprobs = output.logprobs;
    else {
      const { index, tokenIds, text, logprobs, finishReason, stopReason } = output.choice;
      const choice = (result.choices[index] ??= {
        ids: [],
        text: '',
        finishReason: null,
        stopReason: null,
        logprobs: [],
      });
      choice.ids.push(...tokenIds);
      choice.text += text;
      choice.logprobs.push(...(logprobs ?? []));
      choice.finishReason = finishReason;
      choice.stopReason = stopReason;
    }
  }
  return result;
}

export async function run(engine: BatchEngine, source: GenerationRequest): Promise<CollectedRequest> {
  return collect(engine.generate(source));
}

/** The choices of a request that has a roomy engine to itself. */
export async function solo(
  source: GenerationRequest,
  runnerOptions: FakeRunnerOptions = {},
): Promise<Collected[]> {
  const { engine } = harness({
    ...runnerOptions,
    numBlocks: 1024,
    maxBatchedTokens: 1024,
    maxLogitRows: 1024,
  });
  return (await run(engine, source)).choices;
}

/** The first choice, which must be there. */
export function only(result: CollectedRequest): Collected {
  const choice = result.choices[0];
  if (choice === undefined) throw new Error('the request gave no choice');
  return choice;
}

/** `code: message` of what `work` throws. */
export function refusal(work: () => unknown): string {
  try {
    work();
  } catch (error) {
    return describeError(error);
  }
  throw new Error('nothing was refused');
}

export function describeError(error: unknown): string {
  if (!(error instanceof FdqError)) throw error;
  return `${error.code}: ${error.message}`;
}
