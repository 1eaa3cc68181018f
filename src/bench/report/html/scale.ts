/** Where a value stands on an axis, 0..1, and the values that are written beside it. */
export interface Scale {
  readonly position: (value: number) => number;
  readonly ticks: readonly number[];
}

const WANTED_TICKS = 5;
/** A larger ratio of the largest to the smallest value is drawn in powers of ten. */
const LINEAR_RATIO = 20;

/** A logarithmic scale for figures of different magnitude, else a linear one from zero. */
export function chooseScale(values: readonly number[]): Scale {
  const smallest = Math.min(...values);
  const largest = Math.max(...values);
  const positive = values.filter((value) => value > 0);
  const leastPositive = Math.min(...positive);
  if (smallest < 0 || positive.length === 0 || largest / leastPositive <= LINEAR_RATIO) {
    return linearScale(Math.min(0, smallest), largest);
  }
  const scale = logScale(leastPositive, largest);
  return smallest > 0 ? scale : withZero(scale);
}

/** Room below a logarithmic scale for the zero that it lacks. */
function withZero({ position, ticks }: Scale): Scale {
  const room = 0.12;
  return {
    position: (value) => (value === 0 ? 0 : room + (1 - room) * position(value)),
    ticks: [0, ...ticks],
  };
}

/** Ticks at 1, 2 or 5 times a power of ten; the axis ends at a tick. */
export function linearScale(low: number, high: number): Scale {
  const span = high - low || 1;
  const rough = span / WANTED_TICKS;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = ([1, 2, 5, 10].find((factor) => factor * power >= rough) ?? 10) * power;
  const first = Math.floor(low / step);
  const last = Math.max(first + 1, Math.ceil((low + span) / step));
  const ticks = Array.from({ length: last - first + 1 }, (_, index) => (first + index) * step);
  const start = first * step;
  return { position: (value) => (value - start) / (last * step - start), ticks };
}

/** Ticks at powers of ten, and at 2 and 5 times them where there are few. */
export function logScale(low: number, high: number): Scale {
  const first = Math.floor(Math.log10(low));
  const last = Math.max(first + 1, Math.ceil(Math.log10(high)));
  const factors = last - first <= 2 ? [1, 2, 5] : [1];
  const ticks = Array.from({ length: last - first + 1 }, (_, index) => 10 ** (first + index))
    .flatMap((power) => factors.map((factor) => factor * power))
    .filter((value) => value <= 10 ** last);
  return { position: (value) => (Math.log10(value) - first) / (last - first), ticks };
}

/** Room doubles with each tick: for numbers of requests, which are doubled from run to run. */
export function doublingScale(values: readonly number[]): Scale {
  const ticks = [...new Set(values)].sort((a, b) => a - b);
  const low = Math.log2(ticks[0] ?? 1);
  const high = Math.log2(ticks.at(-1) ?? 2);
  return { position: (value) => (Math.log2(value) - low) / (high - low || 1), ticks };
}

const PERCENTILE_TICKS = [0, 50, 90, 99, 99.9, 99.99];

/** Each nine takes as much room as the one before. */
export function percentileScale(largest: number): Scale {
  const nines = (percentile: number): number => Math.log10(100 / (100 - percentile));
  const end = nines(Math.max(90, largest));
  return {
    position: (percentile) => nines(percentile) / end,
    ticks: PERCENTILE_TICKS.filter((tick) => tick <= Math.max(90, largest)),
  };
}
