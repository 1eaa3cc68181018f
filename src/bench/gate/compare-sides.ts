import { UserError } from '../../errors.js';
import { findMetric } from '../metrics.js';
import { BENCH_SCHEMA, type BenchReport, type Environment, type Scenario } from '../report.js';
import { toMetric } from '../summarize.js';
import { allowedCores, coresOfLaunch } from './core-placement.js';
import { ALPHA, evaluateGate, judge, type Evidence, type Judgement } from './evaluate.js';
import { OpenLooks } from './look-schedule.js';
import { checkScenarios, type GateOptions } from './options.js';
import { createCoin } from './random-order.js';
import { environmentSchema } from './report-schema.js';
import { MIN_LAUNCHES, MIN_PAIRS_PER_LAUNCH } from './statistics.js';

/** Figures of one round by metric id. */
export type RoundMetrics = Readonly<Record<string, number>>;

/** A build that measures one round at a time when it is told to. */
export interface RoundSource {
  readonly scenarios: readonly string[];
  /** As the build describes it; those of other versions may do so differently. */
  readonly environment: unknown;
  measure(round: number, scenario: string, signal?: AbortSignal): Promise<RoundMetrics>;
  /** Keeps all its threads on some cores. Absent: it has no threads of its own. */
  place?(cores: readonly number[]): Promise<void>;
  close(): Promise<void>;
  /** Ends it at once. */
  kill(): Promise<void>;
}

export interface Sides {
  readonly now: RoundSource;
  readonly baseline: RoundSource;
}

/** Starts both builds anew. */
export type StartSides = (signal: AbortSignal | undefined) => Promise<Sides>;

/** What is known of a scenario before it is measured. */
export interface PlannedScenario {
  readonly parameters: Scenario['parameters'];
  readonly threads: number;
}

export interface CompareOptions {
  readonly gate: GateOptions;
  /** By name. Scenarios that are not in it have no parameters, and run on whatever cores the system likes. */
  readonly plan?: ReadonlyMap<string, PlannedScenario>;
  /** Whole sentences for the report. */
  readonly warnings?: readonly string[];
  /** Of the order of rounds. */
  readonly seed?: number;
  /** Monotonic milliseconds. */
  readonly clock?: () => number;
  readonly onProgress?: (progress: CompareProgress) => void;
  /** Aborted: what was measured so far is the result, with `partial` set. */
  readonly signal?: AbortSignal;
}

export interface CompareProgress {
  readonly scenario: string;
  /** Pairs of rounds of this scenario so far. */
  readonly pairs: number;
  readonly maxPairs: number;
  readonly launches: number;
  /** Scenarios about which something is still open. */
  readonly open: number;
}

/** A launch measures for as long as starting took, but leaves rounds for as many launches. */
const ENOUGH_LAUNCHES = 12;
const MEASURING_PER_STARTING = 1;
/** Of the round that is asked for and not counted, for loading and warming up. */
const WARM_UP = 0;

/**
 * Measures two builds in turns until the gate can tell, or until the time or the rounds are used up. One idles while
 * the other measures; a fair coin decides which begins a pair, and now and then both are started anew.
 * @returns the report of this build, with the gate's verdict
 * @throws UserError `usage` for scenarios or metrics that only one of them has; what starting and measuring throw
 */
export async function compareSides(start: StartSides, options: CompareOptions): Promise<BenchReport> {
  const comparison = new Comparison(start, options);
  try {
    await comparison.run();
  } catch (error) {
    if (options.signal?.aborted !== true || !comparison.hasFigures) throw error;
    return comparison.report(true);
  }
  return comparison.report(false);
}

/** Figures of one scenario: by metric, one entry a launch. */
type Figures = Map<string, { readonly now: number[]; readonly baseline: number[] }[]>;

class Comparison {
  readonly #start: StartSides;
  readonly #options: CompareOptions;
  readonly #clock: () => number;
  readonly #coin: () => boolean;
  readonly #figures = new Map<string, Figures>();
  /** Pairs and looks of each scenario. */
  readonly #pairs = new Map<string, number>();
  readonly #looks = new Map<string, OpenLooks>();
  readonly #warnings: string[];
  readonly #cores = allowedCores();
  #mayPlace = true;
  #environment: Environment | undefined;
  #launches = 0;
  #deadline = Infinity;

  constructor(start: StartSides, options: CompareOptions) {
    this.#start = start;
    this.#options = options;
    this.#clock = options.clock ?? ((): number => performance.now());
    this.#coin = createCoin(options.seed ?? Date.now());
    this.#warnings = [...(options.warnings ?? [])];
  }

  get hasFigures(): boolean {
    return [...this.#pairs.values()].some((pairs) => pairs > 0);
  }

  async run(): Promise<void> {
    this.#deadline = this.#clock() + this.#options.gate.rounds.timeBudgetMs;
    let open: readonly string[] | undefined;
    while (open === undefined || open.length > 0) {
      const began = this.#clock();
      const sides = await this.#start(this.#options.signal);
      try {
        open ??= this.#prepare(sides);
        this.#launches++;
        await this.#measureLaunch(sides, open, began);
        if (this.#launches === 1 && this.#clock() < this.#deadline) this.#refuseUnmeasured();
      } catch (error) {
        await Promise.all([sides.now.kill(), sides.baseline.kill()]);
        throw error;
      }
      await Promise.all([sides.now.close(), sides.baseline.close()]);
      const isOver = this.#clock() >= this.#deadline;
      open = isOver ? [] : open.filter((scenario) => this.#isOpen(scenario));
    }
  }

  /** The last look. */
  report(isPartial: boolean): BenchReport {
    for (const [scenario, pairs] of this.#pairs) this.#looksOf(scenario).take(pairs);
    const draft = this.#draft();
    const result = evaluateGate(draft, this.#options.gate, this.#evidence());
    return { ...draft, partial: isPartial, gate: result };
  }

  #draft(): BenchReport {
    return {
      schema: BENCH_SCHEMA,
      kind: 'speed',
      environment: this.#environment as Environment,
      scenarios: [...this.#figures].flatMap(([name, figures]) =>
        toScenario(name, figures, this.#options.plan?.get(name)),
      ),
      warnings: this.#warnings,
      partial: false,
      gate: null,
    };
  }

  /** What the first launch tells: scenarios in their order. */
  #prepare({ now, baseline }: Sides): readonly string[] {
    this.#environment = environmentSchema.parse(now.environment);
    checkScenarios(this.#options.gate, now.scenarios);
    const missing = now.scenarios.find((name) => !baseline.scenarios.includes(name));
    if (missing !== undefined) {
      throw new UserError(
        'usage',
        `The other build does not measure the scenario ${JSON.stringify(missing)}.`,
        { param: '--baseline-command', suggestions: [`It measures: ${baseline.scenarios.join('; ')}.`] },
      );
    }
    for (const name of now.scenarios) this.#figures.set(name, new Map());
    return now.scenarios;
  }

  async #measureLaunch(sides: Sides, scenarios: readonly string[], began: number): Promise<void> {
    for (const scenario of scenarios) {
      const loading = this.#clock();
      await this.#warmUp(sides, scenario);
      const startMs = this.#clock() - loading + (loading - began) / scenarios.length;
      const until = this.#clock() + startMs * MEASURING_PER_STARTING;
      const { least, most } = this.#pairsPerLaunch();
      for (let pair = 1; ; pair++) {
        this.#record(scenario, pair === 1, await this.#measurePair(sides, scenario, pair));
        const pairs = (this.#pairs.get(scenario) ?? 0) + 1;
        this.#pairs.set(scenario, pairs);
        this.#options.onProgress?.({
          scenario,
          pairs,
          maxPairs: this.#options.gate.rounds.max,
          launches: this.#launches,
          open: scenarios.length,
        });
        if (pair >= least && (pair >= most || this.#clock() >= until)) break;
        if (this.#clock() >= this.#deadline || pairs >= this.#options.gate.rounds.max) break;
      }
    }
  }

  /** Both load at the same time, on all cores; then they get the same cores, and settle on them for a round. */
  async #warmUp(sides: Sides, scenario: string): Promise<void> {
    const { plan, signal } = this.#options;
    const threads = plan?.get(scenario)?.threads ?? Infinity;
    const cores = coresOfLaunch(this.#cores, threads, this.#launches);
    await this.#place(sides, this.#cores);
    await Promise.all([sides.now, sides.baseline].map((side) => side.measure(WARM_UP, scenario, signal)));
    if (cores === undefined) return;
    await this.#place(sides, cores);
    await this.#measurePair(sides, scenario, WARM_UP);
  }

  async #place({ now, baseline }: Sides, cores: readonly number[]): Promise<void> {
    if (!this.#mayPlace) return;
    try {
      await Promise.all([now.place?.(cores), baseline.place?.(cores)]);
    } catch (error) {
      this.#mayPlace = false;
      const reason = error instanceof Error ? error.message.trim() : String(error);
      this.#warnings.push(`Both builds could not be kept on the same cores, which makes noise: ${reason}`);
      // Neither may be left with fewer cores than the other.
      await Promise.allSettled([now.place?.(this.#cores), baseline.place?.(this.#cores)]);
    }
  }

  #pairsPerLaunch(): { readonly least: number; readonly most: number } {
    const { min, max } = this.#options.gate.rounds;
    const least = Math.max(MIN_PAIRS_PER_LAUNCH, Math.ceil(min / MIN_LAUNCHES));
    return { least, most: Math.max(least, Math.ceil(max / ENOUGH_LAUNCHES)) };
  }

  async #measurePair({ now, baseline }: Sides, scenario: string, round: number): Promise<Pair> {
    const { signal } = this.#options;
    if (this.#coin()) {
      const first = await now.measure(round, scenario, signal);
      return { now: first, baseline: await baseline.measure(round, scenario, signal) };
    }
    const first = await baseline.measure(round, scenario, signal);
    return { now: await now.measure(round, scenario, signal), baseline: first };
  }

  /** Figures that both have. */
  #record(scenario: string, isNewLaunch: boolean, { now, baseline }: Pair): void {
    const figures = this.#figures.get(scenario);
    for (const [id, value] of Object.entries(now)) {
      const other = baseline[id];
      if (figures === undefined || other === undefined || findMetric(id)?.id !== id) continue;
      const launches = figures.get(id) ?? [];
      if (isNewLaunch || launches.length === 0) launches.push({ now: [], baseline: [] });
      launches.at(-1)?.now.push(value);
      launches.at(-1)?.baseline.push(other);
      figures.set(id, launches);
    }
  }

  /** Looks at a scenario when a look is due, and tells whether more rounds could decide something about it. */
  #isOpen(scenario: string): boolean {
    const pairs = this.#pairs.get(scenario) ?? 0;
    const { min, max } = this.#options.gate.rounds;
    const looks = this.#looksOf(scenario);
    if (pairs >= max) return false;
    if (this.#launches < MIN_LAUNCHES || !looks.isDue(pairs, min)) return true;
    looks.take(pairs);
    return this.#judge().some(({ check, isOpen }) => check.scenario === scenario && isOpen);
  }

  #looksOf(scenario: string): OpenLooks {
    const looks = this.#looks.get(scenario) ?? new OpenLooks();
    this.#looks.set(scenario, looks);
    return looks;
  }

  #judge(): readonly Judgement[] {
    return judge(this.#draft(), this.#options.gate, this.#evidence());
  }

  /** What the first launch did not measure no later one will. */
  #refuseUnmeasured(): void {
    const unmeasured = this.#judge().find(({ check, isOpen }) => check.verdict === 'inconclusive' && !isOpen);
    if (unmeasured === undefined) return;
    const { condition, reason } = unmeasured.check;
    throw new UserError('usage', `Cannot decide about ${JSON.stringify(condition)} in rounds: ${reason}`, {
      param: '--fail-if',
      suggestions: [`Metrics of rounds: ${this.#metricsOfRounds().join(', ')}.`],
    });
  }

  #metricsOfRounds(): readonly string[] {
    return [...new Set([...this.#figures.values()].flatMap((figures) => [...figures.keys()]))];
  }

  #evidence(): Evidence {
    return {
      paired: { scenarios: this.#figures },
      alphaOf: (scenario) => this.#looksOf(scenario).alpha(ALPHA),
    };
  }
}

interface Pair {
  readonly now: RoundMetrics;
  readonly baseline: RoundMetrics;
}

function toScenario(
  name: string,
  figures: Figures,
  planned: PlannedScenario | undefined,
): readonly Scenario[] {
  if (figures.size === 0) return [];
  const metrics = [...figures].map(([id, launches]) =>
    toMetric(
      id,
      launches.flatMap(({ now }) => now),
    ),
  );
  return [{ name, parameters: planned?.parameters ?? {}, metrics }];
}
