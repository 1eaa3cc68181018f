import { expect, it } from 'vitest';
import { counted } from '../../src/counted.js';

it('counts things in the number they have', () => {
  expect([0, 1, 2].map((count) => counted(count, 'layer'))).toEqual(['0 layers', '1 layer', '2 layers']);
  expect([1, 3].map((count) => counted(count, 'entry is', 'entries are'))).toEqual([
    '1 entry is',
    '3 entries are',
  ]);
});
