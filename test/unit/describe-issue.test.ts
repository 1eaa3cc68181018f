import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { describeMismatch, nameExpected } from '../../src/describe-issue.js';

function describeWrong(schema: z.ZodType, value: unknown): string {
  const parsed = schema.safeParse(value, { error: nameExpected });
  if (parsed.success) throw new Error('expected a mismatch');
  const { path, text } = describeMismatch(parsed.error, value);
  return `Expected ${path === '' ? 'it' : path} ${text}.`;
}

const pair = z.object({ a: z.union([z.array(z.object({ b: z.int() })), z.object({ c: z.string() })]) });

describe('describeMismatch', () => {
  it.each<[string, z.ZodType, unknown, string]>([
    ['the value itself', z.string(), null, 'Expected it to be a string but received null.'],
    ['one choice', z.literal('x'), 'y', 'Expected it to be "x" but received "y".'],
    [
      'keys that are too many',
      z.strictObject({ a: z.string().optional() }),
      { b: 1 },
      'Expected it to be an object without "b" but received an object.',
    ],
    [
      'a pattern',
      z.string().regex(/^a$/),
      'b',
      'Expected it to be a string that matches /^a$/ but received "b".',
    ],
    ['a multiple', z.number().multipleOf(4), 5, 'Expected it to be a multiple of 4 but received 5.'],
    ['a limit that is left out', z.number().lt(3), 3, 'Expected it to be below 3 but received 3.'],
    ['a large number', z.bigint().max(3n), 5n, 'Expected it to be at most 3 but received 5.'],
    [
      'a union, the branch that got furthest',
      pair,
      { a: [{ b: 'x' }] },
      'Expected a[0].b to be a whole number but received "x".',
    ],
    [
      'a union of which no branch got anywhere',
      pair,
      { a: 3 },
      'Expected a to be of another form but received 3.',
    ],
  ])('names %s', (_what, schema, value, text) => {
    expect(describeWrong(schema, value)).toBe(text);
  });
});
