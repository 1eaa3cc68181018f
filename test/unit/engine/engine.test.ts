import { describe, expect, it } from 'vitest';
import { contextHash, fakeLogprob } from '../../helpers/fake-runner.js';
import { collect, EOS, harness, only, prompt, request, run, solo } from './harness.js';

describe('continuous batching', () => {
  it('generates the tokens that the model alone would', async () => {
    const { engine, runner } = harness();
    const result = only(await run(engine, request(prompt(10), { maxTokens: 5 })));
    const tokens = prompt(10);
    // The toy model: neutral parameters fold into the hash of the context.
    expect(result.ids).toHaveLength(5);
    expect(result.text).toBe(result.ids.map((id) => `<${id}>`).join(''));
    expect(result.finishReason).toBe('length');
    expect(runner.steps.map((step) => step.numTokens)).toEqual([10, 1, 1, 1, 1]);
    const longer = only(
      await run(harness().engine, request([...tokens, ...result.ids.slice(0, 3)], { maxTokens: 2 })),
    );
    expect(longer.ids).toEqual(result.ids.slice(3));
  });

  it('packs decodes before prefills within the token limit, and gives each its solo output', async () => {
    const { engine, runner } = harness({}, { maxNumBatchedTokens: 16, maxNumSeqs: 4 });
    const sources = [5, 30, 11, 47, 3].map((length, i) => request(prompt(length, i), { maxTokens: 12 }));
    const results = await Promise.all(sources.map((source) => run(engine, source)));
    for (const [i, source] of sources.entries()) {
      expect(only(results[i]!).ids).toEqual((await solo(source))[0]!.ids);
    }
    expect(Math.max(...runner.steps.map((step) => step.numTokens))).toBe(16);
    expect(Math.max(...runner.steps.map((step) => step.numSequences))).toBe(4);
    for (const { chunks } of runner.steps) {
      const firstLong = chunks.findIndex((chunk) => chunk > 1);
      if (firstLong >= 0)
        expect(chunks.slice(firstLong + 1).filter((chunk) => chunk === 1).length).toBeLessThan(2);
    }
  });

  it('serves lower priority numbers first, and equals in order of arrival', async () => {
    const { engine } = harness({}, { maxNumSeqs: 1 });
    const order: string[] = [];
    const priorities = [0, 5, 5, -1, 0];
    await Promise.all(
      priorities.map(async (priority, i) => {
        const outputs = engine.generate(request(prompt(4, i), { maxTokens: 2 }, { id: `p${i}`, priority }));
        for await (const output of outputs) if (output.kind === 'started') order.push(`p${i}`);
      }),
    );
    expect(order).toEqual(['p3', 'p0', 'p4', 'p1', 'p2']);
  });

  it('caps the chunk of a long prompt and the number of prompts between two chunks', async () => {
    const { engine, runner } = harness(
      {},
      { maxNumBatchedTokens: 40, longPrefillTokenThreshold: 6, maxNumPartialPrefills: 2 },
    );
    const sources = [0, 1, 2, 3].map((i) => request(prompt(24, i), { maxTokens: 1 }));
    await Promise.all(sources.map((source) => run(engine, source)));
    expect(Math.max(...runner.steps.flatMap((step) => step.chunks))).toBe(6);
    // The last chunks of two prompts leave room for the next two to begin.
    expect(runner.steps.map((step) => step.numSequences)).toEqual([2, 2, 2, 4, 2, 2, 2]);
    const unbounded = harness({}, { maxNumBatchedTokens: 40, longPrefillTokenThreshold: 6 });
    await Promise.all(
      [0, 1, 2, 3].map((i) => run(unbounded.engine, request(prompt(24, i), { maxTokens: 1 }))),
    );
    expect(unbounded.runner.steps.map((step) => step.numSequences)).toEqual([4, 4, 4, 4]);
  });

  it('asks for one logits row where a step finishes no prompt', async () => {
    const { engine, runner } = harness({}, { maxNumBatchedTokens: 8 });
    await run(engine, request(prompt(20), { maxTokens: 1 }));
    expect(runner.steps.map(({ numTokens, numRows }) => [numTokens, numRows])).toEqual([
      [8, 1],
      [8, 1],
      [4, 1],
    ]);
  });

  it('lets the event loop turn in every step', async () => {
    const { engine, runner } = harness();
    let turns = 0;
    const turn = (): void => {
      turns++;
      if (engine.lifecycle.live.size > 0) setImmediate(turn);
    };
    const running = run(engine, request(prompt(4), { maxTokens: 50 }));
    setImmediate(turn);
    await running;
    expect(runner.steps).toHaveLength(50);
    expect(turns).toBeGreaterThanOrEqual(49);
  });
});

describe('limits of a request', () => {
  it('ends with the context', async () => {
    const { engine } = harness({ maxModelLen: 16 });
    const result = only(await run(engine, request(prompt(12), { maxTokens: 100 })));
    expect(result.ids).toHaveLength(4);
    expect(result.finishReason).toBe('length');
  });

  it('ends with the pool when that is smaller than the context', async () => {
    const { engine } = harness({ numBlocks: 4, blockSize: 4 });
    const result = only(await run(engine, request(prompt(13), { maxTokens: 100 })));
    expect(result.ids).toHaveLength(4);
    expect(result.ids).toEqual((await solo(request(prompt(13), { maxTokens: 4 })))[0]!.ids);
    expect(only(await run(engine, request(prompt(16), { maxTokens: 100 }))).ids).toHaveLength(1);
  });

  it('refuses what can never run, naming the limit', () => {
    const { engine } = harness({ maxModelLen: 32, numBlocks: 4, blockSize: 4 });
    expect(() => engine.generate(request(prompt(17)))).toThrowError(
      expect.objectContaining({
        code: 'context_length_exceeded',
        message: expect.stringContaining('4 KV blocks'),
      }),
    );
    expect(() => engine.generate(request(prompt(32)))).toThrowError(
      expect.objectContaining({ code: 'context_length_exceeded', message: expect.stringContaining('32') }),
    );
    expect(engine.lifecycle.counters.accepted).toBe(0);
  });

  it.each([
    ['an empty prompt', request([])],
    ['a prompt id past the vocabulary', request([64])],
    ['a negative prompt id', request([-1])],
    ['a fractional id', request([1.5])],
    ['a bias of an unknown id', request([1], { logitBias: new Map([[64, 1]]) })],
    ['an endless bias', request([1], { logitBias: new Map([[3, Number.NaN]]) })],
    ['an unknown allowed id', request([1], { allowedTokenIds: [99] })],
    ['an unknown stop id', request([1], { stopTokenIds: [99] })],
    ['an unknown bad word', request([1], { badWords: [[1, 99]] })],
    ['an empty bad word', request([1], { badWords: [[]] })],
    ['an empty stop string', request([1], { stop: ['a', ''] })],
    ['no choices', request([1], { n: 0 })],
    ['too many choices', request([1], { n: 1_000_000_000 })],
    ['a negative length', request([1], { maxTokens: -1 })],
    ['a temperature that is no number', request([1], { temperature: Number.NaN })],
    ['fractional alternatives', request([1], { logprobs: 0.5 })],
  ])('refuses %s', (_, source) => {
    const { engine } = harness();
    expect(() => engine.generate(source)).toThrowError(
      expect.objectContaining({ code: 'invalid_request', suggestions: [expect.any(String)] }),
    );
    expect(engine.lifecycle.live.size).toBe(0);
  });

  it('refuses an id that is under way', async () => {
    const { engine } = harness();
    const source = request(prompt(3), { maxTokens: 1 });
    const first = run(engine, source);
    expect(() => engine.generate(source)).toThrowError(expect.objectContaining({ code: 'invalid_request' }));
    await first;
    expect(only(await run(engine, source)).ids).toHaveLength(1);
  });

  it('refuses limits that the runner cannot serve', () => {
    const refused = expect.objectContaining({ code: 'invalid_config' });
    expect(() => harness({ maxLogitRows: 4 }, { maxNumSeqs: 5 })).toThrowError(refused);
    expect(() => harness({}, { maxNumBatchedTokens: 7 })).toThrowError(refused);
    expect(() => harness({ maxBatchedTokens: 64 }, { maxNumBatchedTokens: 65 })).toThrowError(refused);
    expect(() => harness({ maxModelLen: 64 }, { maxModelLen: 65 })).toThrowError(refused);
    expect(() => harness({}, { maxWaitingSeconds: 0 })).toThrowError(refused);
  });
});

describe('scores', () => {
  it('reports logprobs, ranks and alternatives of generated tokens', async () => {
    const { engine } = harness();
    const result = only(await run(engine, request(prompt(6), { maxTokens: 3, logprobs: 2 })));
    expect(result.logprobs.map(({ id }) => id)).toEqual(result.ids);
    const context = contextHash([...prompt(6), ...result.ids.slice(0, 2)]);
    const last = result.logprobs[2]!;
    expect(last.logprob).toBeCloseTo(fakeLogprob(context, last.id), 4);
    const likelier = Array.from({ length: 64 }, (_, id) => fakeLogprob(context, id)).sort((a, b) => b - a);
    expect(last.top.map(({ logprob }) => Number(logprob.toFixed(3)))).toEqual(likelier.slice(0, 2));
    expect(likelier[last.rank - 1]).toBeCloseTo(last.logprob, 4);
    const plain = only(await run(engine, request(prompt(6), { maxTokens: 3, logprobs: 0 })));
    expect(plain.logprobs[0]!.top).toEqual([]);
    expect(only(await run(engine, request(prompt(6), { maxTokens: 3 }))).logprobs).toEqual([]);
  });

  it.each([
    ['few rows', { maxLogitRows: 8 }, {}],
    ['small chunks', {}, { maxNumBatchedTokens: 8 }],
  ])('scores every prompt token with %s', async (_, runnerOptions, options) => {
    const { engine, runner } = harness(runnerOptions, options);
    const result = await run(engine, request(prompt(30), { maxTokens: 2, promptLogprobs: 1 }));
    expect(result.kinds.slice(0, 3)).toEqual(['started', 'prompt', 'delta']);
    const scores = result.promptLogprobs!;
    expect(scores).toHaveLength(30);
    expect(scores[0]).toBeNull();
    for (const [i, score] of scores.entries()) {
      if (i === 0) continue;
      expect(score!.id).toBe(prompt(30)[i]);
      expect(score!.logprob).toBeCloseTo(fakeLogprob(contextHash(prompt(30).slice(0, i)), prompt(30)[i]!), 4);
      expect(score!.top).toHaveLength(1);
    }
    expect(Math.max(...runner.steps.map(({ numRows }) => numRows))).toBeLessThanOrEqual(8);
  });

  it('never takes positions to be scored from the prefix cache', async () => {
    const { engine } = harness();
    await run(engine, request(prompt(30), { maxTokens: 1 }));
    const scored = await run(engine, request(prompt(30), { maxTokens: 1, promptLogprobs: 0 }));
    expect(scored.cachedTokens).toBe(0);
    expect(scored.promptLogprobs).toHaveLength(30);
    expect((await run(engine, request(prompt(30), { maxTokens: 1 }))).cachedTokens).toBe(28);
  });

  it('only scores when no token is asked for', async () => {
    const { engine, runner } = harness();
    const result = await run(engine, request(prompt(9), { maxTokens: 0, promptLogprobs: 0, n: 2 }));
    expect(result.kinds).toEqual(['started', 'prompt', 'delta', 'delta']);
    expect(result.promptLogprobs).toHaveLength(9);
    expect(result.choices.map(({ ids, finishReason }) => [ids, finishReason])).toEqual([
      [[], 'length'],
      [[], 'length'],
    ]);
    expect(runner.steps.map(({ numTokens }) => numTokens)).toEqual([8]);
    const single = await run(engine, request([3], { maxTokens: 0, promptLogprobs: 0 }));
    expect(single.promptLogprobs).toEqual([null]);
    const nothing = await run(engine, request(prompt(9), { maxTokens: 0 }));
    expect(nothing.kinds).toEqual(['started', 'delta']);
    expect(runner.steps).toHaveLength(1);
  });
});

describe('end of a choice', () => {
  /** Ids that the toy model generates after `prompt(6)`. */
  async function generated(count: number): Promise<number[]> {
    return (await solo(request(prompt(6), { maxTokens: count })))[0]!.ids;
  }

  it('stops at a stop string over several tokens and leaves it out', async () => {
    const ids = await generated(8);
    const stop = `${ids[3]}><${ids[4]}`;
    const { engine } = harness();
    const text = ids.map((id) => `<${id}>`).join('');
    const cut = only(await run(engine, request(prompt(6), { maxTokens: 8, stop: ['never', stop] })));
    expect(cut).toMatchObject({
      finishReason: 'stop',
      stopReason: stop,
      text: text.slice(0, text.indexOf(stop)),
    });
    expect(cut.ids).toEqual(ids.slice(0, 5));
    const kept = await run(
      engine,
      request(prompt(6), { maxTokens: 8, stop: [stop], includeStopStrInOutput: true }),
    );
    expect(only(kept).text).toBe(text.slice(0, text.indexOf(stop) + stop.length));
  });

  it('stops at a stop token id, which is text only when asked for', async () => {
    const ids = await generated(8);
    const { engine } = harness();
    const cut = only(await run(engine, request(prompt(6), { maxTokens: 8, stopTokenIds: [ids[2]!] })));
    expect(cut).toMatchObject({ finishReason: 'stop', stopReason: ids[2], text: `<${ids[0]}><${ids[1]}>` });
    expect(cut.ids).toEqual(ids.slice(0, 3));
    const options = { maxTokens: 8, stopTokenIds: [ids[2]!], includeStopStrInOutput: true };
    expect(only(await run(engine, request(prompt(6), options))).text).toBe(
      `<${ids[0]}><${ids[1]}><${ids[2]}>`,
    );
  });

  it('stops at end of text unless told to go on', async () => {
    const { engine } = harness();
    const biased = { maxTokens: 4, logitBias: new Map([[EOS, 100]]) };
    const ended = only(await run(engine, request(prompt(6), { ...biased, ignoreEos: false })));
    expect(ended).toMatchObject({ ids: [EOS], text: '', finishReason: 'stop', stopReason: null });
    const ignored = only(await run(engine, request(prompt(6), { ...biased, ignoreEos: true })));
    expect(ignored).toMatchObject({ ids: [EOS, EOS, EOS, EOS], finishReason: 'length' });
  });

  it('does not end before minTokens', async () => {
    const { engine } = harness();
    const biased = { maxTokens: 6, minTokens: 3, logitBias: new Map([[EOS, 100]]), ignoreEos: false };
    const ended = only(await run(engine, request(prompt(6), biased)));
    expect(ended.ids).toHaveLength(4);
    expect(ended.ids.indexOf(EOS)).toBe(3);
    const ids = await generated(4);
    const early = { maxTokens: 6, minTokens: 3, stopTokenIds: [ids[0]!] };
    expect(only(await run(engine, request(prompt(6), early))).ids.length).toBeGreaterThanOrEqual(3);
  });

  it('keeps bad words out', async () => {
    const ids = await generated(6);
    const { engine } = harness();
    const single = only(await run(engine, request(prompt(6), { maxTokens: 6, badWords: [[ids[0]!]] })));
    expect(single.ids).not.toContain(ids[0]);
    const pair = only(
      await run(engine, request(prompt(6), { maxTokens: 6, badWords: [[ids[1]!, ids[2]!]] })),
    );
    expect(pair.ids.slice(0, 2)).toEqual(ids.slice(0, 2));
    expect(pair.ids[2]).not.toBe(ids[2]);
  });

  it('draws allowed ids only', async () => {
    const { engine } = harness();
    const result = only(await run(engine, request(prompt(6), { maxTokens: 9, allowedTokenIds: [7, 9] })));
    expect(result.ids.every((id) => id === 7 || id === 9)).toBe(true);
  });

  it('hands out what was held back when the length ends the text', async () => {
    const ids = await generated(3);
    const { engine } = harness();
    const stop = `<${ids[2]}>unlikely`;
    const result = only(await run(engine, request(prompt(6), { maxTokens: 3, stop: [stop] })));
    expect(result).toMatchObject({ text: ids.map((id) => `<${id}>`).join(''), finishReason: 'length' });
  });
});

describe('choices', () => {
  it('gives each choice its own seed, the first that of the request', async () => {
    const { engine, runner } = harness();
    const sampled = { temperature: 1, seed: 42n, maxTokens: 6 };
    const many = await run(engine, request(prompt(21), { ...sampled, n: 3 }));
    const one = await run(harness().engine, request(prompt(21), sampled));
    expect(many.choices[0]!.ids).toEqual(only(one).ids);
    expect(new Set(many.choices.map(({ text }) => text)).size).toBe(3);
    const busy = harness({}, { maxNumSeqs: 2, maxNumBatchedTokens: 8 });
    const others = [1, 2, 3].map((i) => run(busy.engine, request(prompt(15, i), { maxTokens: 20 })));
    const again = await run(busy.engine, request(prompt(21), { ...sampled, n: 3 }));
    expect(again.choices.map(({ ids }) => ids)).toEqual(many.choices.map(({ ids }) => ids));
    await Promise.all(others);
    // 21 tokens once; the two others find 5 blocks of 4 and compute the last token.
    expect(runner.steps.slice(0, 2).map(({ chunks }) => chunks)).toEqual([[21], [1, 1, 1]]);
  });

  it('shares the prompt among choices without a prefix cache for others', async () => {
    const { engine, runner, recorder } = harness({}, { enablePrefixCaching: false });
    await run(engine, request(prompt(21), { n: 2, maxTokens: 2 }));
    await run(engine, request(prompt(21), { n: 2, maxTokens: 2 }));
    expect(runner.steps.map(({ chunks }) => chunks)).toEqual([[21], [1, 1], [1], [21], [1, 1], [1]]);
    expect(recorder.prefix).toEqual([]);
  });

  it('draws another seed for each request without one', async () => {
    const { engine } = harness();
    const source = { temperature: 1, maxTokens: 8 };
    const first = only(await run(engine, request(prompt(5), source)));
    const second = only(await run(engine, request(prompt(5), source)));
    expect(first.ids).not.toEqual(second.ids);
  });
});

describe('prefix cache', () => {
  it('computes a shared prefix once and at least the last token always', async () => {
    const { engine, runner, recorder } = harness();
    const first = await run(engine, request(prompt(16), { maxTokens: 1 }));
    const second = await run(engine, request(prompt(16), { maxTokens: 1 }));
    const third = await run(engine, request([...prompt(10), 50, 51], { maxTokens: 1 }));
    expect([first.cachedTokens, second.cachedTokens, third.cachedTokens]).toEqual([0, 12, 8]);
    expect(only(second).ids).toEqual(only(first).ids);
    expect(runner.steps.map(({ numTokens }) => numTokens)).toEqual([16, 4, 4]);
    expect(recorder.prefix).toEqual([
      { queried: 16, hit: 0 },
      { queried: 16, hit: 12 },
      { queried: 12, hit: 8 },
    ]);
  });

  it('finds the answer of an earlier turn', async () => {
    const { engine } = harness();
    const first = only(await run(engine, request(prompt(10), { maxTokens: 9 })));
    const second = await run(engine, request([...prompt(10), ...first.ids, 3, 4], { maxTokens: 1 }));
    // 18 of the 19 tokens were computed: four full blocks.
    expect(second.cachedTokens).toBe(16);
  });

  it('keeps salts apart', async () => {
    const { engine } = harness();
    const cached: number[] = [];
    for (const cacheSalt of ['a', 'b', 'a', undefined, '']) {
      const rest = cacheSalt === undefined ? {} : { cacheSalt };
      cached.push((await run(engine, request(prompt(16), { maxTokens: 1 }, rest))).cachedTokens);
    }
    expect(cached).toEqual([0, 0, 12, 0, 0]);
  });

  it('finds nothing when it is off', async () => {
    const { engine } = harness({}, { enablePrefixCaching: false });
    await run(engine, request(prompt(16), { maxTokens: 1 }));
    expect((await run(engine, request(prompt(16), { maxTokens: 1 }))).cachedTokens).toBe(0);
    expect(engine.blocks.cached).toBe(0);
  });
});

describe('preemption', () => {
  it('recomputes the youngest when blocks run out, token-exact', async () => {
    const { engine, recorder } = harness({ numBlocks: 12, blockSize: 4 });
    const sources = [0, 1, 2].map((i) => request(prompt(6, i), { maxTokens: 30, temperature: 1, seed: 7n }));
    const finished: number[] = [];
    const results = await Promise.all(
      sources.map(async (source, i) => {
        const result = await run(engine, source);
        finished.push(i);
        return result;
      }),
    );
    for (const [i, source] of sources.entries()) {
      expect(only(results[i]!).ids).toEqual((await solo(source))[0]!.ids);
      expect(results[i]!.kinds.filter((kind) => kind === 'started')).toHaveLength(1);
    }
    expect(recorder.preemptions).toBeGreaterThan(0);
    expect(finished).toEqual([0, 1, 2]);
    expect(engine.stats()).toEqual({ running: 0, waiting: 0, kvBlocksUsed: 0, kvBlocksTotal: 12 });
  });

  it('keeps the scores that a preempted request already has', async () => {
    const { engine, recorder } = harness({ numBlocks: 11 }, { longPrefillTokenThreshold: 2 });
    const older = [1, 2, 3].map((i) => run(engine, request(prompt(3, i), { maxTokens: 12 })));
    const scored = await run(engine, request(prompt(20, 5), { maxTokens: 4, promptLogprobs: 0 }));
    await Promise.all(older);
    expect(recorder.preemptions).toBeGreaterThan(0);
    expect(scored.promptLogprobs!.map((score) => score?.id ?? null)).toEqual([
      null,
      ...prompt(20, 5).slice(1),
    ]);
    expect(only(scored).ids).toEqual((await solo(request(prompt(20, 5), { maxTokens: 4 })))[0]!.ids);
  });
});

describe('outputs', () => {
  it('merges what a slow reader leaves unread', async () => {
    const { engine } = harness();
    const slow = engine.generate(request(prompt(5), { maxTokens: 40, logprobs: 0 }));
    await run(engine, request(prompt(5, 1), { maxTokens: 60 }));
    const result = await collect(slow);
    expect(result.kinds).toEqual(['started', 'delta']);
    expect(only(result).ids).toHaveLength(40);
    expect(only(result).logprobs).toHaveLength(40);
  });

  it('reports timings and counts', async () => {
    let now = 100;
    const { engine, recorder } = harness({}, { clock: () => now++ });
    await run(engine, request(prompt(5), { maxTokens: 3 }));
    expect(recorder.firstTokens).toBe(1);
    expect(recorder.interTokens).toBe(2);
    expect(
      recorder.steps.map(({ promptTokens, generatedTokens }) => [promptTokens, generatedTokens]),
    ).toEqual([
      [5, 1],
      [0, 1],
      [0, 1],
    ]);
    const { reason, promptTokens, generatedTokens, timings } = recorder.finishes[0]!;
    expect({ reason, promptTokens, generatedTokens }).toEqual({
      reason: 'length',
      promptTokens: 5,
      generatedTokens: 3,
    });
    expect(timings.arrival).toBeLessThan(timings.scheduled);
    expect(timings.scheduled).toBeLessThan(timings.firstToken!);
    expect(timings.firstToken).toBeLessThan(timings.finished);
  });
});
