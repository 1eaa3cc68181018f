import { ALPHA, evaluateGate, judge, type Evidence } from '../gate/evaluate.js';
import { OpenLooks } from '../gate/look-schedule.js';
import type { GateOptions } from '../gate/options.js';
import type { BenchReport, GateResult } from '../report.js';

/** Repeats scenarios while the gate cannot tell. */
export interface Repeater {
  /**
   * Asked after each repetition, from the number of repetitions that was asked for.
   * @param report of one scenario
   */
  wantsMore(report: BenchReport, rounds: number): boolean;
  /** The verdict about all of them, which knows how often they were looked at. */
  decide(report: BenchReport): GateResult | null;
}

/** Of one scenario. */
interface Seen {
  readonly looks: OpenLooks;
  /** Repetitions so far. */
  rounds: number;
  /** The shortest that was not asked for. */
  fastestMs: number;
  /** Repetitions that there may be, as far as time goes at that speed. */
  most: number;
}

/**
 * @param repetitions before the first look
 * @param clock monotonic milliseconds; the time budget is what repetitions beyond those take
 */
export function createRepeater(
  gate: GateOptions,
  repetitions: number,
  clock: () => number = () => performance.now(),
): Repeater {
  const { timeBudgetMs, max } = gate.rounds;
  const most = Math.max(repetitions, max);
  const mayRepeat = gate.conditions.length > 0 && timeBudgetMs > 0 && repetitions > 1;
  const scenarios = new Map<string, Seen>();
  let leftMs = timeBudgetMs;
  let askedAt: number | undefined;
  const seen = (scenario: string): Seen => {
    const fresh = { looks: new OpenLooks(), rounds: 0, fastestMs: Infinity, most };
    const known = scenarios.get(scenario) ?? fresh;
    scenarios.set(scenario, known);
    return known;
  };
  const evidence: Evidence = mayRepeat
    ? {
        alphaOf: (scenario) => seen(scenario).looks.alpha(ALPHA),
        looksAhead: (scenario) => seen(scenario).looks.ahead(seen(scenario).most, ALPHA),
      }
    : {};
  const isOpen = (report: BenchReport): boolean =>
    judge(report, gate, evidence).some(
      (judgement) =>
        judgement.isOpen && report.scenarios.some(({ name }) => name === judgement.check.scenario),
    );
  const look = (report: BenchReport, rounds: number): boolean => {
    const due = report.scenarios
      .map(({ name }) => seen(name).looks)
      .filter((looks) => looks.isDue(rounds, repetitions));
    for (const looks of due) looks.take(rounds);
    return due.length === 0 || isOpen(report);
  };
  return {
    wantsMore: (report, rounds) => {
      const now = clock();
      const tookMs = askedAt === undefined ? undefined : now - askedAt;
      leftMs -= tookMs ?? 0;
      for (const { name } of report.scenarios) count(seen(name), rounds, { tookMs, leftMs });
      const isOver = !mayRepeat || leftMs <= 0 || rounds >= most;
      const wants = !isOver && look(report, rounds);
      askedAt = wants ? now : undefined;
      return wants;
    },
    decide: (report) => {
      // Where time or repetitions ended it, this is one more look.
      for (const { looks, rounds } of scenarios.values()) looks.take(rounds);
      return evaluateGate(report, gate, evidence);
    },
  };
}

function count(
  seen: Seen,
  rounds: number,
  { tookMs, leftMs }: { readonly tookMs: number | undefined; readonly leftMs: number },
): void {
  seen.rounds = rounds;
  if (tookMs === undefined) return;
  seen.fastestMs = Math.min(seen.fastestMs, tookMs);
  seen.most = Math.min(seen.most, rounds + Math.floor(Math.max(0, leftMs) / seen.fastestMs));
}
