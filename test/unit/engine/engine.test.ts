import { describe, expect, it } from 'vitest';
import { collect, harness, only, prompt, request, run, solo } from './harness.js';

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
    expect(engine.stats()).toMatchObject({ running: 0, waiting: 0, kvBlocksUsed: 0, kvBlocksTotal: 12 });
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
