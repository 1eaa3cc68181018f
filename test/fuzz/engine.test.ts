import { expect, it } from 'vitest';
import { checkInvariants } from '../../src/engine/invariants.js';
import type { GenerationRequest } from '../../src/engine/types.js';
import { collect, harness, params, prompt, solo } from '../unit/engine/harness.js';
import { fc } from '../helpers/properties.js';

const TIME_LIMIT_MS = 8000;
const BLOCK_SIZE = 4;
const NUM_RUNS = 1000;

const requestArbitrary = fc.record({
  base: fc.nat(2),
  shared: fc.integer({ min: 1, max: 24 }),
  own: fc.array(fc.integer({ min: 1, max: 40 }), { maxLength: 6 }),
  maxTokens: fc.nat(14),
  n: fc.constantFrom(1, 1, 1, 2, 3),
  temperature: fc.constantFrom(0, 1),
  seed: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
  promptLogprobs: fc.constantFrom(undefined, undefined, undefined, 0, 2),
  frequencyPenalty: fc.constantFrom(0, 0, 0.5),
  repetitionPenalty: fc.constantFrom(1, 1, 1.2),
  stop: fc.constantFrom<string[]>([], [], ['7>'], ['><1', '2><3']),
  stopTokenIds: fc.constantFrom<number[]>([], [], [9, 10, 11, 12]),
  minTokens: fc.constantFrom(0, 0, 5),
  badWords: fc.constantFrom<number[][]>([], [[5], [6, 7]]),
  ignoreEos: fc.boolean(),
  cacheSalt: fc.constantFrom(undefined, undefined, 'a'),
  priority: fc.constantFrom(0, 0, 0, 1, -1),
  /** Steps after which the request joins, and is cancelled. */
  joinAt: fc.nat(20),
  cancelAt: fc.oneof(fc.constant(Infinity), fc.constant(Infinity), fc.nat(40)),
});

type RequestCase = typeof requestArbitrary extends fc.Arbitrary<infer Value> ? Value : never;

const engineArbitrary = fc.record({
  numBlocks: fc.integer({ min: 12, max: 30 }),
  maxNumSeqs: fc.integer({ min: 1, max: 6 }),
  extraTokens: fc.nat(20),
  extraRows: fc.nat(10),
  enablePrefixCaching: fc.boolean(),
  longPrefillTokenThreshold: fc.constantFrom(0, 0, 3),
  maxNumPartialPrefills: fc.constantFrom(undefined, 1, 2),
});

function toRequest(source: RequestCase, index: number): GenerationRequest {
  const {
    base,
    shared,
    own,
    promptLogprobs,
    cacheSalt,
    priority,
    joinAt: _,
    cancelAt: __,
    ...sampling
  } = source;
  return {
    id: `request ${index}`,
    promptTokenIds: [...prompt(shared, base), ...own],
    params: params({ ...sampling, ...(promptLogprobs === undefined ? {} : { promptLogprobs }) }),
    ...(cacheSalt === undefined ? {} : { cacheSalt }),
    priority,
  };
}

it('gives each request its solo output, whatever runs beside it', async () => {
  let preemptions = 0;
  let cancelled = 0;
  let hits = 0;
  await fc.assert(
    fc.asyncProperty(
      fc.array(requestArbitrary, { minLength: 1, maxLength: 8 }),
      engineArbitrary,
      async (cases, { numBlocks, extraTokens, extraRows, maxNumPartialPrefills, ...options }) => {
        const maxNumBatchedTokens = options.maxNumSeqs + extraTokens;
        const test = harness(
          { numBlocks, blockSize: BLOCK_SIZE, maxLogitRows: options.maxNumSeqs + extraRows },
          { ...options, maxNumBatchedTokens, ...(maxNumPartialPrefills ? { maxNumPartialPrefills } : {}) },
        );
        const { engine, runner, recorder } = test;
        const requests = cases.map(toRequest);
        const results = new Map<number, ReturnType<typeof collect>>();
        const join = (index: number): void => {
          const abort = new AbortController();
          aborts.set(index, abort);
          results.set(index, collect(engine.generate(requests[index]!, abort.signal)));
        };
        const aborts = new Map<number, AbortController>();
        runner.beforeStep = () => {
          for (const [index, { joinAt, cancelAt }] of cases.entries()) {
            if (!results.has(index) && runner.steps.length >= joinAt) join(index);
            if (runner.steps.length >= cancelAt) aborts.get(index)?.abort();
          }
        };
        for (const index of requests.keys()) {
          if (results.has(index)) continue;
          join(index);
          await results.get(index);
        }
        const outputs = await Promise.all(results.values());
        const indices = [...results.keys()];
        for (const [place, output] of outputs.entries()) {
          const index = indices[place]!;
          const expected = await solo(requests[index]!, { blockSize: BLOCK_SIZE });
          for (const [choice, got] of output.choices.entries()) {
            const wanted = expected[choice]!;
            if (got.finishReason === 'abort') {
              cancelled++;
              expect(wanted.ids.slice(0, got.ids.length)).toEqual(got.ids);
              expect(wanted.text.startsWith(got.text)).toBe(true);
            } else {
              expect(got).toEqual(wanted);
            }
          }
          if (output.promptLogprobs !== null) {
            expect(output.promptLogprobs.map((score) => score?.id)).toEqual([
              undefined,
              ...requests[index]!.promptTokenIds.slice(1),
            ]);
          }
          hits += Math.max(0, output.cachedTokens);
        }
        checkInvariants(engine);
        expect(engine.stats()).toMatchObject({ running: 0, waiting: 0, kvBlocksUsed: 0 });
        expect(recorder.finishes).toHaveLength(requests.length);
        preemptions += recorder.preemptions;
      },
    ),
    { numRuns: NUM_RUNS, interruptAfterTimeLimit: TIME_LIMIT_MS, endOnFailure: true },
  );
  expect(preemptions).toBeGreaterThan(0);
  expect(cancelled).toBeGreaterThan(0);
  expect(hits).toBeGreaterThan(0);
});
