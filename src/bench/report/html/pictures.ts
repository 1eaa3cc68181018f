import { formatBytes } from '../../../cli/render.js';
import type { BenchReport, Distribution, Scenario } from '../../report.js';
import { findFigure, formatFigure, formatWithUnit, metricInfo } from '../format.js';
import type { Chart, Point, Series } from './chart.js';
import { chooseScale, doublingScale, linearScale, percentileScale } from './scale.js';

/** The pictures that a report has data for. */
export function drawPictures({ scenarios }: BenchReport): readonly Chart[] {
  const names = shortNames(scenarios);
  return [...drawLatencies(scenarios, names), ...drawThroughput(scenarios), ...drawPareto(scenarios, names)];
}

type Names = ReadonlyMap<Scenario, string>;

/** Names without the words that all scenarios share. */
function shortNames(scenarios: readonly Scenario[]): Names {
  const words = scenarios.map(({ name }) => name.split(' '));
  const isShared = (word: string): boolean => words.every((each) => each.includes(word));
  return new Map(
    scenarios.map((scenario, index) => {
      const own = (words[index] ?? []).filter((word) => !isShared(word));
      return [scenario, own.length === 0 ? scenario.name : own.join(' ')];
    }),
  );
}

const LATENCY_TITLES: Readonly<Record<string, string>> = {
  ttft: 'Time to first token',
  itl: 'Time between tokens',
  tpot: 'Time per output token',
  e2el: 'End-to-end latency',
};

/** Latency over percentile, one picture for each kind of latency. */
function drawLatencies(scenarios: readonly Scenario[], names: Names): readonly Chart[] {
  const ids = new Set(scenarios.flatMap(({ distributions = [] }) => distributions.map(({ id }) => id)));
  return [...ids].flatMap((id) => {
    const series = scenarios.flatMap((scenario) => latencySeries(scenario, id, names.get(scenario) ?? ''));
    const points = series.flatMap((each) => each.points);
    if (points.length === 0) return [];
    return [
      {
        title: LATENCY_TITLES[id] ?? id,
        x: {
          title: 'percentile',
          scale: percentileScale(Math.max(...points.map(({ x }) => x))),
          format: (tick: number) => `p${tick}`,
        },
        y: { title: 'ms', scale: chooseScale(points.map(({ y }) => y)), format: plain },
        series,
      },
    ];
  });
}

function latencySeries(scenario: Scenario, id: string, name: string): readonly Series[] {
  const found = scenario.distributions?.find((distribution) => distribution.id === id);
  if (found === undefined) return [];
  const points = shownPercentiles(found).map(({ percentile, value }): Point => ({
    x: percentile,
    y: value,
    tip: `${scenario.name}\np${percentile}: ${formatFigure('ms', value)} ms of ${found.count}`,
  }));
  return points.length === 0 ? [] : [{ name, points, isLine: true }];
}

/** From the smallest value to the first percentile that so few events have no value beyond. */
function shownPercentiles({ count, min, percentiles }: Distribution): Distribution['percentiles'] {
  const all = [{ percentile: 0, value: min }, ...percentiles.filter(({ percentile }) => percentile > 0)];
  const last = 100 * (1 - 1 / Math.max(1, count));
  const end = all.findIndex(({ percentile }) => percentile >= last);
  return (end === -1 ? all : all.slice(0, end + 1)).filter(
    ({ percentile, value }) => percentile < 100 && Number.isFinite(value),
  );
}

/** Parameters that say how many requests run at a time. */
const CONCURRENCY = ['max_concurrency', 'batch_size'];
const THROUGHPUTS = ['output_throughput', 'decode'];

/** Generated tokens a second over requests at a time, where a run has several numbers of them. */
function drawThroughput(scenarios: readonly Scenario[]): readonly Chart[] {
  const id = THROUGHPUTS.find((each) =>
    scenarios.some((scenario) => finiteFigure(scenario, each) !== undefined),
  );
  const parameter = CONCURRENCY.find(
    (name) => new Set(scenarios.flatMap((each) => positive(each, name))).size > 1,
  );
  if (id === undefined || parameter === undefined) return [];
  const shown = scenarios.filter(
    (scenario) => positive(scenario, parameter).length > 0 && finiteFigure(scenario, id) !== undefined,
  );
  const lines = new Map<string, Point[]>();
  for (const scenario of shown) {
    const [x = 1] = positive(scenario, parameter);
    const y = finiteFigure(scenario, id) ?? 0;
    const name = otherParameters(scenario, parameter, shown);
    const tip = `${scenario.name}\n${formatWithUnit('tok/s', y)}`;
    lines.set(
      name,
      [...(lines.get(name) ?? []), { x, y, tip }].sort((a, b) => a.x - b.x),
    );
  }
  const points = [...lines.values()].flat();
  return [
    {
      title: 'Throughput over concurrency',
      x: {
        title: `requests at a time (${parameter})`,
        scale: doublingScale(points.map(({ x }) => x)),
        format: plain,
      },
      y: {
        title: `${id}, tok/s`,
        scale: linearScale(0, Math.max(...points.map(({ y }) => y))),
        format: plain,
      },
      series: [...lines].map(([name, own]) => ({ name, points: own, isLine: true })),
    },
  ];
}

function positive({ parameters }: Scenario, name: string): readonly number[] {
  const value = parameters[name];
  return typeof value === 'number' && value > 0 ? [value] : [];
}

function finiteFigure(scenario: Scenario, id: string): number | undefined {
  const value = findFigure(scenario, id)?.value;
  return value !== undefined && Number.isFinite(value) ? value : undefined;
}

/** What tells the lines apart: the parameters besides that of the axis that differ. */
function otherParameters(scenario: Scenario, axis: string, scenarios: readonly Scenario[]): string {
  const own = Object.entries(scenario.parameters).filter(
    ([name, value]) => name !== axis && scenarios.some(({ parameters }) => parameters[name] !== value),
  );
  return own.map(([name, value]) => `${name}=${value}`).join(' ');
}

const LOSSES = ['kl', 'perplexity'];

/** Loss over bytes of the weights: below and left of the front there is nothing. */
function drawPareto(scenarios: readonly Scenario[], names: Names): readonly Chart[] {
  const pointsOf = (id: string): readonly Point[] =>
    scenarios.flatMap((scenario) => {
      const x = finiteFigure(scenario, 'weight_bytes');
      const y = finiteFigure(scenario, id);
      if (x === undefined || y === undefined) return [];
      const tip = `${scenario.name}\n${formatBytes(x)}\n${id} ${formatFigure(metricInfo(id).unit, y)}`;
      return [{ x, y, tip, label: names.get(scenario) ?? scenario.name }];
    });
  const id = LOSSES.find((each) => pointsOf(each).length > 1);
  if (id === undefined) return [];
  const points = pointsOf(id);
  return [
    {
      title: 'Quality over bytes',
      x: { title: 'weights in memory', scale: bytesScale(points.map(({ x }) => x)), format: formatBytes },
      y: { title: `${id} (lower is better)`, scale: chooseScale(points.map(({ y }) => y)), format: plain },
      series: [{ name: id, points, isLine: false }],
      front: findFront(points),
    },
  ];
}

/** Points that no other is at least as good as in both figures, from left to right. */
export function findFront(points: readonly Point[]): readonly Point[] {
  const front: Point[] = [];
  for (const point of [...points].sort((a, b) => a.x - b.x || a.y - b.y)) {
    if (point.y < (front.at(-1)?.y ?? Infinity)) front.push(point);
  }
  return front;
}

/** Bytes from zero, with ticks at round numbers of their unit. */
function bytesScale(values: readonly number[]): ReturnType<typeof linearScale> {
  const largest = Math.max(...values);
  const unit = 1024 ** Math.max(0, Math.floor(Math.log2(Math.max(1, largest)) / 10));
  const { position, ticks } = linearScale(0, largest / unit);
  return { position: (value) => position(value / unit), ticks: ticks.map((tick) => tick * unit) };
}

/** `2500`, `0.02`, without the noise of binary fractions. */
function plain(value: number): string {
  return String(Number(value.toPrecision(6)));
}
