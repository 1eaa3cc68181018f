import { describe, expect, it } from 'vitest';
import { scheduleLooks } from '../../../../src/bench/gate/look-schedule.js';

describe('scheduleLooks', () => {
  it('grows by half from the least to the most', () => {
    expect(scheduleLooks({ min: 24, max: 100 })).toEqual([24, 36, 54, 81, 100]);
  });

  it('looks once where there is one number of rounds', () => {
    expect(scheduleLooks({ min: 24, max: 24 })).toEqual([24]);
    expect(scheduleLooks({ min: 1, max: 3 })).toEqual([1, 2, 3]);
  });
});
