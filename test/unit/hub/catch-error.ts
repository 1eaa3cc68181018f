import { expect } from 'vitest';
import { FdqError } from '../../../src/errors.js';

/** The FdqError that a promise is rejected with; fails when it resolves or throws anything else. */
export async function catchError(promise: Promise<unknown>): Promise<FdqError> {
  const outcome = await promise.then(
    (value) => ({ value }),
    (error: unknown) => ({ error }),
  );
  expect(outcome).toHaveProperty('error');
  const { error } = outcome as { error: unknown };
  expect(error).toBeInstanceOf(FdqError);
  expect((error as FdqError).suggestions.length).toBeGreaterThan(0);
  return error as FdqError;
}
