import {
  BENCH_SCHEMA,
  type BenchReport,
  type Distribution,
  type GateCheck,
  type Metric,
  type Scenario,
} from '../../../../src/bench/report.js';

/** Breaks out of terminals, Markdown, XML, CSV, HTML and workflow commands, where it is not escaped. */
export const HOSTILE =
  '=1+1,"</script><img src=x onerror=alert(1)>|`%0A::error::\u001b[31m\u202e\r\n]]>&\ufffe';

/** A figure of samples with their mean, deviation and, for three of them, Student's 95 % interval. */
export function sampleMetric(id: string, ...samples: readonly number[]): Metric {
  const value = samples.reduce((sum, each) => sum + each, 0) / samples.length;
  const variance =
    samples.reduce((sum, each) => sum + (each - value) ** 2, 0) / Math.max(1, samples.length - 1);
  const std = Math.sqrt(variance);
  const half = (4.303 * std) / Math.sqrt(samples.length);
  return { id, value, samples, std, interval: samples.length < 2 ? null : [value - half, value + half] };
}

export function sampleScenario(
  name: string,
  metrics: readonly Metric[],
  extra: Partial<Scenario> = {},
): Scenario {
  return { name, parameters: {}, metrics, ...extra };
}

export function sampleDistribution(id: string, typical: number): Distribution {
  const percentiles = [50, 75, 90, 95, 99, 99.9].map((percentile) => ({
    percentile,
    value: typical * (1 + 0.2 * Math.log10(100 / (100 - percentile))),
  }));
  return {
    id,
    unit: 'ms',
    count: 1000,
    mean: typical * 1.1,
    std: typical / 5,
    min: typical * 0.9,
    max: typical * 3,
    percentiles,
  };
}

export function sampleCheck(extra: Partial<GateCheck> = {}): GateCheck {
  return {
    condition: 'decode < -5%',
    scenario: 'wint4 t=2',
    metric: 'decode',
    verdict: 'fail',
    value: 28,
    baselineValue: 31.2,
    change: -0.1026,
    changeInterval: [-0.12, -0.084],
    reason: 'The whole interval is below -5 %.',
    ...extra,
  };
}

export function sampleReport(scenarios: readonly Scenario[], extra: Partial<BenchReport> = {}): BenchReport {
  return {
    schema: BENCH_SCHEMA,
    kind: 'speed',
    environment: {
      date: '2026-11-21T12:00:00.000Z',
      platform: 'linux-x64',
      cpu: 'Some CPU @ 2.00GHz',
      cores: 2,
      memoryBytes: 24 * 1024 ** 3,
      isa: 'avx2',
      node: '20.20.0',
      fdq: '0.1.0',
      onnxruntime: '1.30.0',
      commit: '0123456789abcdef0123456789abcdef01234567',
    },
    scenarios,
    warnings: [],
    partial: false,
    gate: null,
    ...extra,
  };
}

const SPEEDS = [
  { scheme: 'none', bytes: 1.2e9, batch: [9, 60, 160], kl: 0 },
  { scheme: 'wint8', bytes: 0.62e9, batch: [17, 110, 260], kl: 0.0011 },
  { scheme: 'block_wise_fp8', bytes: 0.61e9, batch: [16, 100, 240], kl: 0.0043 },
  { scheme: 'wint4:g128', bytes: 0.34e9, batch: [28, 150, 300], kl: 0.031 },
  { scheme: 'wint4', bytes: 0.33e9, batch: [29, 152, 310], kl: 0.094 },
];

/** A sweep over schemes and batch sizes. */
export function speedReport(): BenchReport {
  const scenarios = SPEEDS.flatMap(({ scheme, bytes, batch }) =>
    [1, 8, 32].map((size, index) => {
      const speed = batch[index] ?? 0;
      return sampleScenario(
        `${scheme} kv=auto t=2 d=0 b=${size}`,
        [
          sampleMetric('prefill', 410, 415, 405),
          sampleMetric('decode', speed, speed * 1.02, speed * 0.99),
          sampleMetric('bandwidth_share', 0.71),
          sampleMetric('itl_p50', 1000 / speed),
          sampleMetric('itl_p99', 1300 / speed),
          sampleMetric('load', 2.5),
          sampleMetric('peak_rss', bytes * 1.4),
          sampleMetric('weight_bytes', bytes),
        ],
        {
          parameters: { scheme, threads: 2, depth: 0, batch_size: size, model: 'some-model' },
          distributions: [sampleDistribution('itl', 1000 / speed)],
        },
      );
    }),
  );
  return sampleReport(scenarios);
}

/** Several schemes and what they lose. */
export function qualityReport(): BenchReport {
  const scenarios = SPEEDS.map(({ scheme, bytes, kl }) =>
    sampleScenario(
      scheme,
      [
        sampleMetric('perplexity', 12.3 * (1 + kl)),
        sampleMetric('kl', kl),
        sampleMetric('top1', 1 - kl),
        sampleMetric('weight_bytes', bytes),
      ],
      { parameters: { scheme, window: 512 } },
    ),
  );
  return sampleReport(scenarios, { kind: 'quality' });
}
