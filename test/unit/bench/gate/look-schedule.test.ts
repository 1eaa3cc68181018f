import { describe, expect, it } from 'vitest';
import { OpenLooks } from '../../../../src/bench/gate/look-schedule.js';

describe('OpenLooks', () => {
  it('are due after half as many rounds more, and miss with 5 % in all', () => {
    const looks = new OpenLooks();
    const taken: number[] = [];
    let sum = 0;
    for (let rounds = 1; rounds <= 1000; rounds++) {
      if (!looks.isDue(rounds, 24)) continue;
      looks.take(rounds);
      taken.push(rounds);
      sum += looks.alpha(0.05);
    }
    expect(taken).toEqual([24, 36, 54, 81, 122, 183, 275, 413, 620, 930]);
    expect(sum).toBeLessThanOrEqual(0.05);
    expect(sum).toBeGreaterThan(0.045);
  });

  it('do not count twice without new rounds', () => {
    const looks = new OpenLooks();
    looks.take(24);
    looks.take(24);
    expect(looks.alpha(0.05)).toBe(0.025);
  });

  it('know which are left', () => {
    const looks = new OpenLooks();
    looks.take(5);
    expect(looks.ahead(30, 0.06)).toEqual([
      { rounds: 8, alpha: 0.06 / 6 },
      { rounds: 12, alpha: 0.06 / 12 },
      { rounds: 18, alpha: 0.06 / 20 },
      { rounds: 27, alpha: 0.06 / 30 },
      { rounds: 30, alpha: 0.06 / 42 },
    ]);
    looks.take(30);
    expect(looks.ahead(30, 0.06)).toEqual([]);
  });
});
