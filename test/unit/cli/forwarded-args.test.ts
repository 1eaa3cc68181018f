import { describe, expect, it } from 'vitest';
import { BENCH_GATE_FLAGS, BENCH_ROUNDS_FLAGS } from '../../../src/cli/bench-gate-flags.js';
import { withoutFlags } from '../../../src/cli/forwarded-args.js';

const OWN = { ...BENCH_GATE_FLAGS, ...BENCH_ROUNDS_FLAGS };
const TABLE = {
  ...OWN,
  model: { kind: 'text', group: 'MODEL', char: 'm', summary: '' },
  offline: { kind: 'boolean', group: 'MODEL', negatable: true, summary: '' },
} as const;

describe('withoutFlags', () => {
  it.each([
    ['--model a --fail-if x --fail-if=y --offline', '--model a --offline'],
    ['folder --baseline-command node --time_budget 2m -m b', 'folder -m b'],
    ['--allow-other-machine folder --no-offline --json', 'folder --no-offline'],
    ['--model=--baseline --baseline file', '--model=--baseline'],
    ['--model --baseline', '--model --baseline'],
    ['--save-baseline f -- --fail-if', '-- --fail-if'],
  ])('leaves the gate out of %s', (line, rest) => {
    const removed = new Set([...Object.keys(OWN), 'json']);
    expect(withoutFlags(line.split(' '), TABLE, removed).join(' ')).toBe(rest);
  });
});
