import { describe, expect, it } from 'vitest';
import { contextHash, fakeLogprob } from '../../helpers/fake-runner.js';
import { harness, only, prompt, request, run } from './harness.js';

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
