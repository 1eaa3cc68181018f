import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { UserError } from '../../../src/errors.js';
import {
  adviseFolderFirst,
  checkRevision,
  findSimilarPaths,
  HUB_GRAMMAR,
  isFolderReference,
  parseRepoReference,
} from '../../../src/hub/reference.js';
import { createTempDir } from '../../helpers/temp-dir.js';

function catchUserError(work: () => unknown): UserError {
  try {
    work();
  } catch (error) {
    if (error instanceof UserError) return error;
  }
  throw new Error('Expected a UserError');
}

describe('parseRepoReference', () => {
  it.each([
    ['Qwen/Qwen3-0.6B', { id: 'Qwen/Qwen3-0.6B', revision: 'main' }],
    ['a/b_c.d@v1.0', { id: 'a/b_c.d', revision: 'v1.0' }],
    ['a/b@refs/pr/1', { id: 'a/b', revision: 'refs/pr/1' }],
    ['a/b/', { id: 'a/b', revision: 'main' }],
    ['hf:a/b', { id: 'a/b', revision: 'main' }],
    ['hf:a/b/', { id: 'a/b', revision: 'main' }],
    ['hf:a/b/@v1', { id: 'a/b', revision: 'v1' }],
    ['hf:a/b@v1', { id: 'a/b', revision: 'v1' }],
    ['hf:a/b/c/', { id: 'a/b', revision: 'main', folder: 'c' }],
    ['hf:a/b/c/@v1/x', { id: 'a/b', revision: 'v1/x', folder: 'c' }],
    ['hf:a/b/c', { id: 'a/b', revision: 'main', folder: 'c' }],
    ['hf:a/b/c-1/d.e@refs/pr/1', { id: 'a/b', revision: 'refs/pr/1', folder: 'c-1/d.e' }],
  ])('reads %s', (reference, expected) => {
    expect(parseRepoReference(reference)).toEqual(expected);
  });

  it('takes the revision from the option', () => {
    expect(parseRepoReference('a/b', 'dev')).toEqual({ id: 'a/b', revision: 'dev' });
    expect(parseRepoReference('a/b@dev', 'dev')).toEqual({ id: 'a/b', revision: 'dev' });
    expect(() => parseRepoReference('a/b@x', 'dev')).toThrow(/"x".*"dev"/);
  });

  it.each([
    'name',
    './a/b',
    '../b',
    '/a/b',
    '~/b',
    'a/b/c',
    'a//b',
    'a/',
    '/b',
    'a/..',
    'a--b/c',
    'a b/c',
    '-a/b',
    'a/.b',
    'a/b//',
    `a/${'b'.repeat(100)}`,
    'a/b/c@main',
  ])('takes %s for a path', (reference) => {
    expect(parseRepoReference(reference)).toBeUndefined();
  });

  it.each([
    ['hf:', 'it has no organisation and name'],
    ['hf:name', 'it has no organisation and name'],
    ['hf:name@main', 'it has no organisation and name'],
    ['hf:org/', 'it has no organisation and name'],
    ['hf:/b', '"" is no name on the hub'],
    ['hf:a b/c', '"a b" is no name on the hub'],
    ['hf:a/..', '".." is no name on the hub'],
    ['hf:./a', '"." is no name on the hub'],
    [`hf:a/${'b'.repeat(100)}`, 'its 102 characters are more than 96'],
    ['hf:a/b//', '"" is no folder of a repository'],
    ['hf:a/b/..', '".." is no folder'],
    ['hf:a/b/c//d', '"c//d" is no folder'],
    ['hf:a/b/c/../d', '"c/../d" is no folder'],
    ['hf:a/b/c\\d', '"c\\d" is no folder'],
    ['hf:a/b/c\0', '"c\\u0000" is no folder'],
    [`hf:a/b/${'c'.repeat(300)}`, '"ccc'],
  ])('refuses %s and says what a hub id is', (reference, problem) => {
    const error = catchUserError(() => parseRepoReference(reference));
    expect(error).toMatchObject({ code: 'usage', exitCode: 2 });
    expect(error.message).toContain(`is not a hub id: ${problem}`);
    expect(error.suggestions).toContain(HUB_GRAMMAR);
  });

  it.each([
    ['hf:a/b@main/gpu', 'hf:a/b/gpu@main'],
    ['a/b@main/gpu/int4', 'hf:a/b/gpu/int4@main'],
    ['hf:a/b/gpu@main/int4', 'hf:a/b/gpu/int4@main'],
    [`hf:a/b@${'0'.repeat(40)}/gpu`, `hf:a/b/gpu@${'0'.repeat(40)}`],
  ])('takes %s for a folder behind the revision', (reference, meant) => {
    const error = catchUserError(() => parseRepoReference(reference));
    expect(error.suggestions[0]).toContain(` write ${meant}.`);
    expect(error.suggestions).toContain(HUB_GRAMMAR);
  });

  it('advises about a folder only where a revision has parts of its own', () => {
    expect(adviseFolderFirst({ id: 'a/b', revision: 'v1/gpu' })).toBe(
      'For the folder gpu write hf:a/b/gpu@v1.',
    );
    expect(adviseFolderFirst({ id: 'a/b', revision: 'v1' })).toBeUndefined();
    expect(adviseFolderFirst({ id: 'a/b', revision: 'refs/pr/1' })).toBeUndefined();
  });

  it.each([
    ['a/b/c', true],
    ['a/b/c/', true],
    ['a/b/c@main', true],
    ['a/b', false],
    ['./a/b', false],
    ['a/b/../c', false],
  ])('tells whether %s is a folder of a repository: %s', (text, expected) => {
    expect(isFolderReference(text)).toBe(expected);
  });

  it.each(['', '..', '../x', 'a/../b', '/abs', 'a//b', 'a/', 'x?y', 'a b', 'x\n', './x'])(
    'refuses the revision "%s"',
    (revision) => {
      expect(() => checkRevision(revision)).toThrow(/branch, tag or commit/);
      expect(() => parseRepoReference(`a/b@${revision}`)).toThrow(/branch, tag or commit/);
    },
  );
});

describe('findSimilarPaths', () => {
  it('offers the nearest folders beside the path, at most three', async () => {
    const dir = await createTempDir();
    for (const name of ['qwen3', 'qwen2', 'llama', 'qwen3-8b', '.qwen3', 'qwen4'])
      await mkdir(join(dir, name));
    expect(await findSimilarPaths(join(dir, 'qwen3x'))).toEqual(
      ['qwen3', 'qwen2', 'qwen4'].map((n) => join(dir, n)),
    );
    expect(await findSimilarPaths(join(dir, 'LLAMA'))).toEqual([join(dir, 'llama')]);
    expect(await findSimilarPaths(join(dir, 'zzzzzzzz'))).toEqual([]);
    expect(await findSimilarPaths(join(dir, 'none', 'x'))).toEqual([]);
  });
});
