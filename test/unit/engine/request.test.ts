import { describe, expect, it } from 'vitest';
import { EOS, harness, only, prompt, refusal, request, run, solo } from './harness.js';

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
    expect(refusal(() => engine.generate(request(prompt(17))))).toMatch(
      /^context_length_exceeded: .*4 KV blocks/,
    );
    expect(refusal(() => engine.generate(request(prompt(32))))).toMatch(/^context_length_exceeded: .*32/);
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
    expect(refusal(() => engine.generate(source))).toMatch(/^invalid_request: /);
    expect(engine.lifecycle.live.size).toBe(0);
  });

  it('refuses an id that is under way', async () => {
    const { engine } = harness();
    const source = request(prompt(3), { maxTokens: 1 });
    const first = run(engine, source);
    expect(refusal(() => engine.generate(source))).toMatch(/^invalid_request: /);
    await first;
    expect(only(await run(engine, source)).ids).toHaveLength(1);
  });

  it('refuses limits that the runner cannot serve', () => {
    const refused = /^invalid_config: /;
    expect(refusal(() => harness({ maxLogitRows: 4 }, { maxNumSeqs: 5 }))).toMatch(refused);
    expect(refusal(() => harness({}, { maxNumBatchedTokens: 7 }))).toMatch(refused);
    expect(refusal(() => harness({ maxBatchedTokens: 64 }, { maxNumBatchedTokens: 65 }))).toMatch(refused);
    expect(refusal(() => harness({ maxModelLen: 64 }, { maxModelLen: 65 }))).toMatch(refused);
    expect(refusal(() => harness({}, { maxWaitingSeconds: 0 }))).toMatch(refused);
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
