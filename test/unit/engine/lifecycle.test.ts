import { getEventListeners } from 'node:events';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { checkInvariants } from '../../../src/engine/invariants.js';
import type { EngineOutput } from '../../../src/engine/types.js';
import {
  collect,
  describeError,
  harness,
  only,
  prompt,
  refusal,
  request,
  run,
  solo,
  wordStream,
  type Harness,
} from './harness.js';

afterEach(() => {
  vi.useRealTimers();
});

function expectNothingHeld({ engine }: Harness): void {
  checkInvariants(engine);
  expect(engine.stats()).toMatchObject({ running: 0, waiting: 0, kvBlocksUsed: 0 });
  expect(engine.lifecycle.live.size).toBe(0);
  expect(engine.lifecycle.queuedTokens).toBe(0);
}

async function failure(outputs: AsyncIterable<EngineOutput>): Promise<Error> {
  try {
    await collect(outputs);
  } catch (error) {
    return error as Error;
  }
  throw new Error('the request did not fail');
}

describe('cancellation', () => {
  it('takes a queued request out without disturbing the one that runs', async () => {
    const test = harness({}, { maxNumSeqs: 1 });
    const { engine, runner } = test;
    const canary = request(prompt(6), { maxTokens: 10 });
    const running = run(engine, canary);
    await runner.nextStep();
    const abort = new AbortController();
    const queued = collect(engine.generate(request(prompt(9, 1)), abort.signal));
    expect(engine.stats()).toMatchObject({ running: 1, waiting: 1 });
    abort.abort();
    expect(engine.stats()).toMatchObject({ running: 1, waiting: 0 });
    expect(await queued).toMatchObject({ kinds: ['delta'], choices: [{ ids: [], finishReason: 'abort' }] });
    expect(only(await running).ids).toEqual((await solo(canary))[0]!.ids);
    expectNothingHeld(test);
  });

  it.each([
    ['prefilling', 3],
    ['decoding', 6],
  ])('ends a request that is %s in the step under way', async (_, stepsBefore) => {
    const test = harness({}, { maxNumBatchedTokens: 8, enablePrefixCaching: false });
    const { engine, runner } = test;
    const abort = new AbortController();
    const doomed = collect(engine.generate(request(prompt(38, 1), { maxTokens: 50 }), abort.signal));
    for (let step = 0; step < stepsBefore; step++) await runner.nextStep();
    runner.pause();
    await runner.nextStep();
    abort.abort();
    expect(engine.stats()).toMatchObject({ running: 0, kvBlocksUsed: 0 });
    const { choices } = await doomed;
    expect(choices[0]!.finishReason).toBe('abort');
    const numSteps = runner.steps.length;
    const canary = request(prompt(20, 2), { maxTokens: 5 });
    const after = run(engine, canary);
    runner.resume();
    expect(only(await after).ids).toEqual((await solo(canary))[0]!.ids);
    expect(runner.steps.slice(numSteps).every(({ chunks }) => chunks.length === 1)).toBe(true);
    expect(getEventListeners(abort.signal, 'abort')).toHaveLength(0);
    expectNothingHeld(test);
  });

  it('ends a request whose iterator is returned', async () => {
    const test = harness();
    const { engine, recorder } = test;
    for await (const output of engine.generate(request(prompt(20), { maxTokens: 400, n: 2 }))) {
      if (output.kind === 'delta') break;
    }
    expectNothingHeld(test);
    expect(recorder.finishes.map(({ reason }) => reason)).toEqual(['abort']);
    expect(engine.lifecycle.counters).toEqual({ accepted: 1, finished: 0, cancelled: 1, failed: 0 });
  });

  it('stops listening to the signal of a request that is done', async () => {
    const { signal } = new AbortController();
    const { engine } = harness();
    await collect(engine.generate(request(prompt(5), { maxTokens: 2 }), signal));
    expect(getEventListeners(signal, 'abort')).toHaveLength(0);
  });

  it('refuses to start what was aborted before', async () => {
    const test = harness();
    const result = await collect(test.engine.generate(request(prompt(5)), AbortSignal.abort()));
    expect(result.choices[0]!.finishReason).toBe('abort');
    expect(test.runner.steps).toHaveLength(0);
    expectNothingHeld(test);
  });

  it('ends all choices, also those that wait for the prompt', async () => {
    const test = harness({}, { maxNumBatchedTokens: 8 });
    const abort = new AbortController();
    const result = collect(test.engine.generate(request(prompt(30), { n: 4 }), abort.signal));
    await test.runner.nextStep();
    abort.abort();
    expect((await result).choices.map(({ finishReason }) => finishReason)).toEqual(Array(4).fill('abort'));
    expectNothingHeld(test);
  });

  it('wakes a reader that waits', async () => {
    const test = harness();
    test.runner.pause();
    const iterator = test.engine.generate(request(prompt(5)))[Symbol.asyncIterator]();
    expect((await iterator.next()).value).toMatchObject({ kind: 'started' });
    const waiting = iterator.next();
    await iterator.return?.();
    expect(await waiting).toMatchObject({ value: { choice: { finishReason: 'abort' } } });
    expect(await iterator.next()).toEqual({ done: true, value: undefined });
    test.runner.resume();
    await test.engine.close();
    expectNothingHeld(test);
  });
});

describe('overload', () => {
  it('refuses at once what exceeds places and queue', async () => {
    const { engine, runner } = harness({}, { maxNumSeqs: 2, maxWaiting: 3 });
    runner.pause();
    const accepted = [0, 1].map((i) => run(engine, request(prompt(4, i), { maxTokens: 2 })));
    await runner.nextStep();
    for (let i = 2; i < 5; i++) accepted.push(run(engine, request(prompt(4, i), { maxTokens: 2 })));
    expect(refusal(() => engine.generate(request(prompt(4))))).toMatch(/^overloaded: .*queue of 3/);
    runner.resume();
    expect((await Promise.all(accepted)).map((result) => only(result).ids.length)).toEqual([2, 2, 2, 2, 2]);
    await run(engine, request(prompt(4)));
  });

  it('bounds the prompt tokens that wait, but lets one request wait', async () => {
    const { engine, runner } = harness({}, { maxNumSeqs: 1, maxWaitingTokens: 50 });
    runner.pause();
    const first = run(engine, request(prompt(4), { maxTokens: 1 }));
    await runner.nextStep();
    const long = run(engine, request(prompt(60), { maxTokens: 1 }));
    expect(refusal(() => engine.generate(request(prompt(1))))).toMatch(/^overloaded: .*60 prompt tokens/);
    runner.resume();
    await Promise.all([first, long]);
    expect(engine.lifecycle.queuedTokens).toBe(0);
  });

  it('fails a request that waited too long', async () => {
    let now = 0;
    const test = harness({}, { maxNumSeqs: 1, maxWaitingSeconds: 10, clock: () => now });
    const { engine, runner } = test;
    const running = run(engine, request(prompt(4), { maxTokens: 20 }));
    await runner.nextStep();
    const early = failure(engine.generate(request(prompt(4, 1))));
    now = 8;
    const late = run(engine, request(prompt(4, 2), { maxTokens: 1 }));
    now = 11;
    expect(describeError(await early)).toMatch(/^overloaded: .*11.0 s/);
    expect(only(await late).ids).toHaveLength(1);
    expect(only(await running).ids).toHaveLength(20);
    expectNothingHeld(test);
  });
});

describe('failures', () => {
  it.each([
    ['generating', { maxTokens: 30 }],
    ['scoring', { maxTokens: 1, promptLogprobs: 0 }],
  ])('fails only the request whose logits are unusable while %s', async (_, changes) => {
    const test = harness({ poisonId: 60 });
    const canary = request(prompt(8), { maxTokens: 20, badWords: [[60]] });
    const alive = run(test.engine, canary);
    const error = await failure(test.engine.generate(request([60, 3, 4], { ...changes, n: 2 })));
    expect(describeError(error)).toMatch(/^runtime_failed: .*no usable logits/);
    expect(only(await alive).ids).toEqual((await solo(canary))[0]!.ids);
    expect(test.engine.alive).toBe(true);
    expect(test.recorder.finishes[0]!.reason).toBe('error');
    expectNothingHeld(test);
  });

  it('blames the request that leaves no token to draw', async () => {
    const test = harness();
    const error = await failure(
      test.engine.generate(request(prompt(4), { allowedTokenIds: [5], badWords: [[5]] })),
    );
    expect(describeError(error)).toMatch(/^invalid_request: .*position 4/);
    expectNothingHeld(test);
  });

  it('hands out what came before the failure', async () => {
    const test = harness();
    const outputs = test.engine.generate(
      request(prompt(4), { maxTokens: 5, badWords: [[5], [6, 6, 5]], allowedTokenIds: [6] }),
    );
    const first = await collect(outputs);
    expect(only(first).ids).toEqual([6, 6, 6, 6, 6]);
    const failing = test.engine.generate(
      request(prompt(4), { maxTokens: 5, allowedTokenIds: [6], badWords: [[6, 6, 6]] }),
    );
    await run(test.engine, request(prompt(5), { maxTokens: 9 }));
    const kinds: string[] = [];
    let error: unknown;
    try {
      for await (const output of failing)
        kinds.push(output.kind === 'delta' ? output.choice.text : output.kind);
    } catch (thrown) {
      error = thrown;
    }
    expect(kinds).toEqual(['started', '<6><6>']);
    expect(error).toMatchObject({ code: 'invalid_request' });
  });

  it('fails only the request whose text cannot be made', async () => {
    const createTextStream: typeof wordStream = (options) => {
      if (options.promptTokenIds.length !== 3) return wordStream(options);
      return {
        push: () => {
          throw new TypeError('no such piece');
        },
        end: () => '',
      };
    };
    const test = harness({}, { createTextStream });
    const alive = run(test.engine, request(prompt(8), { maxTokens: 20 }));
    expect(await failure(test.engine.generate(request(prompt(3))))).toMatchObject({
      code: 'internal',
      cause: { message: 'no such piece' },
    });
    expect(only(await alive).ids).toHaveLength(20);
    expectNothingHeld(test);
  });

  it.each([
    [
      'throws',
      () => {
        throw new Error('kernel fault');
      },
    ],
    ['rejects', () => Promise.reject(new Error('kernel fault'))],
  ])('dies without a hang when the runner %s', async (_, fault) => {
    const test = harness({}, { maxNumSeqs: 2 });
    const { engine, runner } = test;
    runner.beforeStep = () => (runner.steps.length === 3 ? fault() : undefined);
    const outcomes = await Promise.all(
      [0, 1, 2].map((i) => failure(engine.generate(request(prompt(5, i), { maxTokens: 50 })))),
    );
    expect(outcomes.map(describeError)).toEqual([
      'runtime_failed: The model failed: kernel fault',
      'runtime_failed: The model failed: kernel fault',
      'engine_dead: The engine stopped after a failure: The model failed: kernel fault',
    ]);
    expect(engine.alive).toBe(false);
    expect(refusal(() => engine.generate(request(prompt(3))))).toMatch(/^engine_dead: /);
    expectNothingHeld(test);
    await engine.drain(1000);
    await engine.close();
    expect(runner.isClosed).toBe(true);
  });
});

describe('shutting down', () => {
  it('refuses new requests and waits for the running ones', async () => {
    const test = harness();
    const { engine } = test;
    const running = run(engine, request(prompt(5), { maxTokens: 30 }));
    const drained = engine.drain(60_000);
    expect(refusal(() => engine.generate(request(prompt(3))))).toMatch(/^shutting_down: /);
    await drained;
    expect(only(await running)).toMatchObject({ finishReason: 'length' });
    expect(engine.alive).toBe(true);
    await engine.drain(60_000);
    expectNothingHeld(test);
  });

  it('aborts what is not done in time', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    const test = harness();
    const { engine, runner } = test;
    runner.pause();
    const running = run(engine, request(prompt(5), { maxTokens: 30 }));
    await runner.nextStep();
    const drained = engine.drain(5000);
    await vi.advanceTimersByTimeAsync(4999);
    expect(engine.lifecycle.live.size).toBe(1);
    await vi.advanceTimersByTimeAsync(1);
    await drained;
    expect(only(await running).finishReason).toBe('abort');
    runner.resume();
    await engine.close();
    expectNothingHeld(test);
  });

  it('closes the runner after the step under way, once', async () => {
    const { engine, runner } = harness();
    runner.pause();
    const running = run(engine, request(prompt(5), { maxTokens: 30 }));
    await runner.nextStep();
    const closed = Promise.all([engine.close(), engine.close()]);
    expect(only(await running).finishReason).toBe('abort');
    expect(runner.isClosed).toBe(false);
    runner.resume();
    await closed;
    expect(runner.isClosed).toBe(true);
    expect(engine.alive).toBe(false);
    expect(refusal(() => engine.generate(request(prompt(3))))).toMatch(/^shutting_down: /);
  });
});
