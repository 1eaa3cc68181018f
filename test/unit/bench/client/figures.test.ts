import { describe, expect, it } from 'vitest';
import { computeFigures, type FigureOptions } from '../../../../src/bench/client/figures.js';
import { poolFigures } from '../../../../src/bench/client/pool-figures.js';
import type { RequestRecord } from '../../../../src/bench/client/record.js';
import { describeSpread } from '../../../../src/bench/client/statistics.js';
import { metricValues, toScenario } from '../../../../src/bench/client/to-scenario.js';

const OPTIONS: FigureOptions = { requests: [], goodput: {}, lagMs: 2 };

function record(changes: Partial<RequestRecord>): RequestRecord {
  return {
    scheduledMs: null,
    sentMs: 0,
    chunksMs: [],
    endMs: null,
    text: '',
    usage: null,
    retries: 0,
    outcome: 'ok',
    ...changes,
  };
}

/** Sent at 100, first text at 300, three more every 50, end at 450; 7 tokens in 4 chunks. */
const FIRST = record({
  scheduledMs: 40,
  sentMs: 100,
  chunksMs: [300, 350, 400, 450],
  endMs: 450,
  text: 'abcd',
  usage: { inputTokens: 11, outputTokens: 7 },
});

/** One token at once. */
const SECOND = record({
  scheduledMs: 120,
  sentMs: 120,
  chunksMs: [220],
  endMs: 220,
  usage: { inputTokens: 5, outputTokens: 1 },
});

const FAILED = record({ sentMs: 130, retries: 2, outcome: { kind: 'status 503', message: 'busy' } });
const ABORTED = record({ sentMs: 140, chunksMs: [150], outcome: 'aborted' });

describe('computeFigures', () => {
  const figures = computeFigures(
    { records: [FIRST, SECOND, FAILED, ABORTED], durationMs: 2000 },
    { ...OPTIONS, goodput: { ttft: 150 } },
  );

  it('counts requests by how they ended', () => {
    expect(figures).toMatchObject({ completed: 2, failed: 1, aborted: 1, retries: 2, good: 1 });
    expect(figures.failures).toEqual([{ kind: 'status 503', message: 'busy' }]);
  });

  it('takes the times that vLLM takes', () => {
    expect(figures.latencies).toEqual({
      ttft: [200, 100],
      tpot: [150 / 6],
      itl: [50, 50, 50],
      e2el: [350, 100],
      queue: [60, 0],
      e2elQueued: [410, 100],
    });
  });

  it('counts tokens and rates of requests that succeeded', () => {
    expect(figures).toMatchObject({ inputTokens: 16, outputTokens: 8 });
    const values = metricValues(figures);
    expect(values.get('request_throughput')).toBe(1);
    expect(values.get('output_throughput')).toBe(4);
    expect(values.get('total_token_throughput')).toBe(12);
    expect(values.get('request_goodput')).toBe(0.5);
    expect(values.get('error_rate')).toBeCloseTo(1 / 3, 12);
    expect(values.get('ttft')).toBe(150);
    expect(values.get('ttft_p99')).toBeCloseTo(199, 9);
    expect(values.get('queue')).toBe(30);
    expect(values.get('client_lag_p99')).toBe(2);
  });

  it('finds the most that happened at a time', () => {
    expect(figures.maxConcurrentRequests).toBe(2);
    // Seconds count from 100: all five chunks are in the first.
    expect(figures.maxOutputTokensPerSecond).toBe(5);
    const after = { ...SECOND, sentMs: 450, chunksMs: [1600], endMs: 1600 };
    const apart = computeFigures({ records: [FIRST, after], durationMs: 1 }, OPTIONS);
    expect(apart.maxConcurrentRequests).toBe(1);
    expect(apart.maxOutputTokensPerSecond).toBe(4);
  });

  it.each([
    [{ ttft: 200 }, 2],
    [{ ttft: 199.9 }, 1],
    [{ tpot: 25 }, 2],
    [{ tpot: 24.9 }, 1],
    [{ e2el: 349 }, 1],
    [{ ttft: 200, tpot: 25, e2el: 350 }, 2],
    [{ ttft: 200, tpot: 10, e2el: 50 }, 0],
  ])('with the limits %o calls %d of two good', (goodput, good) => {
    const options = { ...OPTIONS, goodput };
    expect(computeFigures({ records: [FIRST, SECOND], durationMs: 1 }, options).good).toBe(good);
  });

  it('adds up more requests than a call has room for arguments', () => {
    const records = Array.from({ length: 200_000 }, (_, i) => ({
      ...SECOND,
      sentMs: i,
      chunksMs: [i],
      endMs: i,
    }));
    expect(computeFigures({ records, durationMs: 1000 }, OPTIONS)).toMatchObject({
      completed: 200_000,
      maxOutputTokensPerSecond: 1000,
    });
  });

  it('has no goodput without limits', () => {
    expect(computeFigures({ records: [FIRST], durationMs: 1 }, OPTIONS).good).toBeNull();
  });

  it('counts tokens by the tokenizer, else chunks, where the server sends no usage', () => {
    const silent = { ...FIRST, usage: null };
    const requests = [{ prompt: 'p', inputTokens: 3, maxTokens: 4 }];
    const chunks = computeFigures({ records: [silent], durationMs: 1 }, { ...OPTIONS, requests });
    expect(chunks).toMatchObject({ inputTokens: 3, outputTokens: 4 });
    expect([...chunks.tokenSources]).toEqual(['chunks']);
    const countTokens = (text: string): number => text.length * 10;
    const counted = computeFigures({ records: [silent], durationMs: 1 }, { ...OPTIONS, countTokens });
    expect(counted.outputTokens).toBe(40);
    expect([...counted.tokenSources]).toEqual(['tokenizer']);
  });

  it('has the end of an answer without text for its first token', () => {
    const answer = record({ endMs: 80, usage: { inputTokens: 1, outputTokens: 1 } });
    expect(computeFigures({ records: [answer], durationMs: 1 }, OPTIONS).latencies).toMatchObject({
      ttft: [80],
      itl: [],
      e2el: [80],
    });
  });
});

describe('poolFigures and toScenario', () => {
  const one = computeFigures({ records: [FIRST], durationMs: 1000 }, OPTIONS);
  const two = computeFigures({ records: [SECOND, FAILED], durationMs: 3000 }, { ...OPTIONS, lagMs: 5 });

  it('adds runs up', () => {
    expect(poolFigures([one, two])).toMatchObject({
      durationMs: 4000,
      completed: 2,
      failed: 1,
      outputTokens: 8,
      lagMs: 5,
      latencies: { ttft: [200, 100], itl: [50, 50, 50] },
    });
  });

  it('has a sample of a run for every metric, and distributions over all', () => {
    const scenario = toScenario('random c=1', { seed: 0 }, { runs: [one, two], percentiles: [97, 99] });
    const find = (id: string) => scenario.metrics.find((metric) => metric.id === id);
    expect(find('ttft')?.samples).toEqual([200, 100]);
    expect(find('ttft')?.value).toBe(150);
    expect(find('itl_p50')?.samples).toEqual([50]);
    expect(find('error_rate')?.samples).toEqual([0, 0.5]);
    const ttft = scenario.distributions?.find(({ id }) => id === 'ttft');
    expect(ttft?.count).toBe(2);
    expect(ttft?.percentiles.find(({ percentile }) => percentile === 97)?.value).toBeCloseTo(200, 0);
    const asked = ttft?.percentiles.map(({ percentile }) => percentile) ?? [];
    expect(asked).toEqual([...asked].sort((a, b) => a - b));
    expect(scenario.distributions?.map(({ id }) => id)).toEqual([
      'ttft',
      'tpot',
      'itl',
      'e2el',
      'queue',
      'e2el_queued',
    ]);
  });
});

describe('describeSpread', () => {
  // numpy.mean, .median, .std and .percentile of [4, 1, 10, 2, 8].
  it('computes as NumPy does', () => {
    const spread = describeSpread([4, 1, 10, 2, 8]);
    expect(spread.mean).toBe(5);
    expect(spread.median).toBe(4);
    expect(spread.std).toBeCloseTo(3.4641016151377544, 12);
    expect(spread.percentile(99)).toBeCloseTo(9.92, 12);
    expect(spread.percentile(25)).toBe(2);
    expect(spread.percentile(100)).toBe(10);
  });

  it('is all 0 of nothing', () => {
    const { percentile, ...rest } = describeSpread([]);
    expect(rest).toEqual({ mean: 0, median: 0, std: 0 });
    expect(percentile(99)).toBe(0);
  });
});
