import { METRICS } from '../metrics.js';
import type { LeftOut } from '../gate/left-out.js';
import { caseName } from './cases.js';
import type { SpeedCase } from './options.js';

const PROMPT = ['prefill', 'ttft'];
const BANDWIDTH = ['bandwidth_share', 'read_bandwidth'];
const DECODING = ['decode', 'itl_min', 'itl_p50', 'itl_p90', 'itl_p99', ...BANDWIDTH];
const LOADING = METRICS.map(({ id }) => id).filter((id) => id === 'load' || id.startsWith('load_'));

/**
 * Figures that none of some cases has.
 * @param inTurns measured beside another build, one repetition at a time
 */
export function leftOutOfCases(cases: readonly SpeedCase[], inTurns: boolean): readonly LeftOut[] {
  const leftOut: LeftOut[] = [];
  if (cases.every(({ promptTokens }) => promptTokens === 0)) {
    leftOut.push({
      metrics: PROMPT,
      reason: '-p 0 leaves the prompt out',
      suggestion: 'Measure prompt speed: -p 512.',
    });
  }
  if (cases.every(({ steps }) => steps === 0)) {
    leftOut.push({
      metrics: DECODING,
      reason: '-n 0 leaves decoding out',
      suggestion: 'Measure decode speed: -n 128.',
    });
  }
  if (inTurns) {
    leftOut.push({
      metrics: [...LOADING, ...BANDWIDTH],
      reason: 'the rounds of --baseline-command are repetitions of loaded models',
      suggestion: 'Compare it with a stored report: --baseline FILE.',
    });
  }
  return leftOut;
}

/** The same for one scenario. */
export function leftOutOfScenario(
  name: string,
  cases: readonly SpeedCase[],
  inTurns: boolean,
): readonly LeftOut[] {
  const own = cases.filter((what) => name.endsWith(` ${caseName(what)}`));
  return own.length === 0 ? [] : leftOutOfCases(own, inTurns);
}
