/** What every `fdq bench` command measures into, its reporters print and its gate decides about: docs/bench.md. */
export interface BenchReport {
  readonly schema: typeof BENCH_SCHEMA;
  readonly kind: BenchKind;
  readonly environment: Environment;
  /** In the order they were measured; names are unique. */
  readonly scenarios: readonly Scenario[];
  readonly warnings: readonly string[];
  /** True when Ctrl-C or a time budget ended the run before everything was measured. */
  readonly partial: boolean;
  /** Null where no condition was given. */
  readonly gate: GateResult | null;
}

export const BENCH_SCHEMA = 'fdq-bench/1';

export type BenchKind = 'speed' | 'serve' | 'quality';

/** Which command measures a kind. */
export const BENCH_COMMANDS: Readonly<Record<BenchKind, string>> = {
  speed: 'fdq bench',
  serve: 'fdq bench serve',
  quality: 'fdq bench quality',
};

/** What a figure depends on besides the scenario. */
export interface Environment {
  /** ISO 8601, UTC. */
  readonly date: string;
  /** `linux-x64`. */
  readonly platform: string;
  readonly cpu: string;
  /** Hardware threads that this process may use. */
  readonly cores: number;
  readonly memoryBytes: number;
  /** Of the kernels, e.g. `avx512bf16`; null where a server does not say. */
  readonly isa: string | null;
  readonly node: string;
  readonly fdq: string;
  readonly onnxruntime: string | null;
  /** Of the git work tree that the command is run in; null outside one. */
  readonly commit: string | null;
}

/** One combination of a sweep. */
export interface Scenario {
  /** Identity across runs, e.g. `wint4 kv=bf16 t=2 d=0 b=8`. Holds nothing that changes from run to run. */
  readonly name: string;
  /** What the combination is made of: scheme, checkpoint digest, threads, prompt tokens, ... */
  readonly parameters: Readonly<Record<string, string | number | boolean | null>>;
  /** At most one of each id. */
  readonly metrics: readonly Metric[];
  /** For pictures and percentile tables; absent where there are none. */
  readonly distributions?: readonly Distribution[];
}

/** A figure of a scenario. */
export interface Metric {
  /** An id of METRICS in src/bench/metrics.ts. */
  readonly id: string;
  /** Mean of the samples, or the one exact figure. In the unit of the id. */
  readonly value: number;
  /** One a repetition, in the order taken; one where repeating changes nothing. */
  readonly samples: readonly number[];
  /** Sample standard deviation; 0 of one sample. */
  readonly std: number;
  /** 95 % confidence interval of the mean; null of fewer than two samples. */
  readonly interval: readonly [low: number, high: number] | null;
}

/** A distribution of single events, e.g. all gaps between tokens. */
export interface Distribution {
  /** Metric-like name: `ttft`, `itl`, `tpot`, `e2el`. */
  readonly id: string;
  readonly unit: 'ms';
  readonly count: number;
  readonly mean: number;
  readonly std: number;
  readonly min: number;
  readonly max: number;
  /** Ascending percentiles in 0..100 with their values; at least 50, 90 and 99. */
  readonly percentiles: readonly { readonly percentile: number; readonly value: number }[];
}

export type Verdict = 'pass' | 'fail' | 'inconclusive';

export interface GateResult {
  /** `fail` if any check failed, else `inconclusive` if any is, else `pass`. */
  readonly verdict: Verdict;
  readonly checks: readonly GateCheck[];
  /** Reference of relative conditions: the file or command as given; null where all are absolute. */
  readonly baseline: string | null;
}

/** One condition on one scenario. */
export interface GateCheck {
  /** As written: `decode < -5%`. */
  readonly condition: string;
  readonly scenario: string;
  readonly metric: string;
  readonly verdict: Verdict;
  /** What the verdict is about: the median beside a change of a noisy figure, else the mean. Null where it is missing. */
  readonly value: number | null;
  /** The same of the baseline. Null for absolute conditions. */
  readonly baselineValue: number | null;
  /** (value - baseline) / baseline of a relative condition, with its 95 % confidence interval. */
  readonly change: number | null;
  readonly changeInterval: readonly [low: number, high: number] | null;
  /** One sentence: what was compared and why the verdict is what it is. */
  readonly reason: string;
}
