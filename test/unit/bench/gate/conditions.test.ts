import { describe, expect, it } from 'vitest';
import { parseGateCondition } from '../../../../src/bench/gate/conditions.js';

const read = (text: string): readonly [string, string, number, boolean] => {
  const { metric, operator, limit, isRelative } = parseGateCondition(text);
  return [metric.id, operator, limit, isRelative];
};

describe('parseGateCondition', () => {
  it.each([
    ['decode < -5%', ['decode', '<', -0.05, true]],
    ['tg<=-5 %', ['decode', '<=', -0.05, true]],
    ['kl > 0.02', ['kl', '>', 0.02, false]],
    ['kl > +10%', ['kl', '>', 0.1, true]],
    ['ttft_p99 > 1.5s', ['ttft_p99', '>', 1500, false]],
    ['load >= 900ms', ['load', '>=', 0.9, false]],
    ['rss > 2GiB', ['peak_rss', '>', 2 ** 31, false]],
    ['top1 < 98%', ['top1', '<', 0.98, false]],
    ['top1-agreement < .98', ['top1', '<', 0.98, false]],
    ['layer_sqnr_min < -3dB', ['layer_sqnr_min', '<', -3, false]],
    ['decode < 30 tok/s', ['decode', '<', 30, false]],
  ])('reads %s', (text, expected) => {
    expect(read(text)).toEqual(expected);
  });

  it('reads words of a scenario in any order', () => {
    const { filter } = parseGateCondition('decode[b=8 wint4*] < -5%');
    expect(filter?.matches('wint4:g128 kv=bf16 t=2 d=0 b=8')).toBe(true);
    expect(filter?.matches('wint4 kv=bf16 t=2 d=0 b=1')).toBe(false);
    expect(filter?.matches('wint8 kv=bf16 t=2 d=0 b=8')).toBe(false);
    expect(filter?.matches('wint4 kv=bf16 t=2 d=0 b=80')).toBe(false);
  });

  it.each([
    ['decode', "Expected --fail-if to be a comparison like 'decode < -5%'"],
    ['decode <', "Expected --fail-if to be a comparison like 'decode < -5%'"],
    ['decode = 3', "Expected --fail-if to be a comparison like 'decode < -5%'"],
    ['decoed < -5%', 'Expected --fail-if to name a metric but received "decoed"'],
    ['decode < 5%', 'a change with its sign, or a limit in the unit of the metric'],
    ['decode < fast', 'decode < and a number (units: tok/s, t/s) or a signed percentage'],
    ['decode < 5ms', 'decode < and a number (units: tok/s, t/s) or a signed percentage'],
    ['kl > -%', 'kl > and a number (units: nats) or a signed percentage'],
    ['decode[] < -5%', 'words of a scenario between the brackets'],
  ])('refuses %s', (text, message) => {
    expect(() => parseGateCondition(text)).toThrow(message);
  });

  it('suggests the metric that was meant', () => {
    expect(() => parseGateCondition('decoed < -5%')).toThrow(
      expect.objectContaining({
        code: 'usage',
        suggestions: expect.arrayContaining(['Did you mean decode?']) as unknown,
      }),
    );
  });
});
