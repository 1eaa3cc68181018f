import { evaluateGate, judge } from '../gate/evaluate.js';
import { scheduleLooks } from '../gate/look-schedule.js';
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
  const mayRepeat = gate.conditions.length > 0 && timeBudgetMs > 0 && repetitions > 1;
  const looks = mayRepeat
    ? scheduleLooks({ min: repetitions, max: Math.max(repetitions, max) })
    : [repetitions];
  let leftMs = timeBudgetMs;
  let askedAt: number | undefined;
  const isOpen = (report: BenchReport): boolean =>
    judge(report, gate, { looks: looks.length }).some(
      (judgement) =>
        judgement.isOpen && report.scenarios.some(({ name }) => name === judgement.check.scenario),
    );
  return {
    wantsMore: (report, rounds) => {
      const now = clock();
      if (askedAt !== undefined) leftMs -= now - askedAt;
      const isOver = leftMs <= 0 || rounds >= (looks.at(-1) ?? 0);
      const wants = !isOver && (!looks.includes(rounds) || isOpen(report));
      askedAt = wants ? now : undefined;
      return wants;
    },
    decide: (report) => evaluateGate(report, gate, { looks: looks.length }),
  };
}
