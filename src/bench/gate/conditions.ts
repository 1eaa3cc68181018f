import { UserError } from '../../errors.js';
import { BYTE_UNITS, COMPARISONS, parseQuantity, type Units } from '../../inspect/quantities.js';
import { globSource } from '../../quant/layer-pattern.js';
import { nearestNames } from '../../quant/nearest.js';
import { findMetric, METRICS, type MetricInfo, type MetricUnit } from '../metrics.js';

/** One `--fail-if`: what must not hold. */
export interface GateCondition {
  /** As written. */
  readonly text: string;
  readonly metric: MetricInfo;
  /** `[wint4 b=8]`: words of the scenario's name; null: every scenario. */
  readonly filter: ScenarioFilter | null;
  readonly operator: Operator;
  /** In the unit of the metric; of relative conditions the change, -0.05 for `-5%`. */
  readonly limit: number;
  readonly isRelative: boolean;
}

export interface ScenarioFilter {
  readonly text: string;
  readonly matches: (scenario: string) => boolean;
}

export type Operator = '<' | '<=' | '>' | '>=';

const FLAG = '--fail-if';
/** `metric [scenario] operator value`. */
const FORM = /^\s*([A-Za-z_][\w-]*)\s*(?:\[(.*)\])?\s*(<=|>=|<|>)\s*(.*?)\s*$/s;
const RELATIVE = /^[+-].*%$/s;

const RATE_UNITS: Units = { '': 1, 'tok/s': 1, 't/s': 1 };
const UNITS: Readonly<Record<MetricUnit, Units>> = {
  'tok/s': RATE_UNITS,
  'req/s': { '': 1, 'req/s': 1, 'r/s': 1 },
  ms: { '': 1, us: 1e-3, µs: 1e-3, ms: 1, s: 1e3 },
  s: { '': 1, ms: 1e-3, s: 1, min: 60 },
  bytes: BYTE_UNITS,
  'bytes/s': { ...BYTE_UNITS, 'gib/s': 1024 ** 3, 'gb/s': 1e9 },
  share: { '': 1, '%': 0.01 },
  nats: { '': 1, nats: 1 },
  count: { '': 1 },
  none: { '': 1 },
  dB: { '': 1, db: 1 },
};

const EXAMPLES: Readonly<Record<MetricUnit, string>> = {
  'tok/s': '30',
  'req/s': '2.5',
  ms: '250ms',
  s: '5s',
  bytes: '400MiB',
  'bytes/s': '20GiB/s',
  share: '98%',
  nats: '0.02',
  count: '0',
  none: '12.5',
  dB: '15dB',
};

/**
 * Reads `metric[scenario] operator value`: `decode < -5%`, `kl > 0.02`, `decode[wint4 b=8] < 30`.
 * @throws UserError `usage`
 */
export function parseGateCondition(text: string): GateCondition {
  const [, name, filter, operator, value] = FORM.exec(text) ?? [];
  if (name === undefined || operator === undefined || value === undefined || value === '') {
    throw invalid(text, "a comparison like 'decode < -5%' or 'kl > 0.02'", [
      "Write a metric, one of < <= > >=, and a limit; quote it for the shell: 'decode < -5%'.",
    ]);
  }
  const metric = requireMetric(name, text);
  const isRelative = RELATIVE.test(value);
  const limit = parseQuantity(value, isRelative ? { '%': 0.01 } : UNITS[metric.unit]);
  if (limit === undefined) throw invalidLimit(text, metric, operator, value);
  return {
    text: text.trim(),
    metric,
    filter: filter === undefined ? null : parseFilter(filter, text),
    operator: operator as Operator,
    limit,
    isRelative,
  };
}

export function holds(operator: Operator, value: number, limit: number): boolean {
  return COMPARISONS[operator]?.(value, limit) ?? false;
}

function requireMetric(name: string, text: string): MetricInfo {
  const metric = findMetric(name.replaceAll('-', '_'));
  if (metric !== undefined) return metric;
  const names = METRICS.flatMap(({ id, aliases }) => [id, ...aliases]);
  throw new UserError(
    'usage',
    `Expected ${FLAG} to name a metric but received ${JSON.stringify(name)} in ${JSON.stringify(text)}.`,
    {
      param: FLAG,
      suggestions: [
        `Did you mean ${nearestNames(name.toLowerCase(), names, 1).join()}?`,
        `Metrics: ${METRICS.map(({ id }) => id).join(', ')}.`,
      ],
    },
  );
}

/** Words in any order: each has to be one of the words of the scenario's name. */
function parseFilter(filter: string, text: string): ScenarioFilter {
  const words = filter.split(/\s+/).filter((word) => word !== '');
  if (words.length === 0) {
    throw invalid(text, 'a condition with words of a scenario between the brackets', [
      "Write 'decode[wint4 b=8] < -5%', or leave the brackets out for every scenario.",
    ]);
  }
  const tests = words.map((word) => compileGlob(word, text));
  return {
    text: words.join(' '),
    matches: (scenario) => {
      const parts = scenario.split(/\s+/);
      return tests.every((test) => parts.some((part) => test.test(part)));
    },
  };
}

function compileGlob(word: string, text: string): RegExp {
  try {
    return new RegExp(`^${globSource(word)}$`, 's');
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw invalid(text, `a condition with patterns of *, ? and [abc] between the brackets`, [reason]);
  }
}

function invalidLimit(text: string, metric: MetricInfo, operator: string, value: string): UserError {
  const example = EXAMPLES[metric.unit];
  if (/^\d.*%$/s.test(value)) {
    return invalid(text, 'a change with its sign, or a limit in the unit of the metric', [
      `Write ${metric.id} ${operator} -${value} or +${value} for a change relative to the baseline.`,
      `Write ${metric.id} ${operator} ${example} for a limit.`,
    ]);
  }
  return invalid(text, `${metric.id} ${operator} and a number${unitText(metric)} or a signed percentage`, [
    `Write ${metric.id} ${operator} ${example}, or ${metric.id} ${operator} -5% relative to the baseline.`,
  ]);
}

function unitText({ unit }: MetricInfo): string {
  const units = Object.keys(UNITS[unit]).filter((name) => name !== '');
  return units.length === 0 ? '' : ` (units: ${units.join(', ')})`;
}

function invalid(text: string, what: string, suggestions: readonly string[]): UserError {
  return new UserError('usage', `Expected ${FLAG} to be ${what} but received ${JSON.stringify(text)}.`, {
    param: FLAG,
    suggestions,
  });
}
