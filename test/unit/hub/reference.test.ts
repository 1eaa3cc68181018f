import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { checkRevision, findSimilarPaths, parseRepoReference } from '../../../src/hub/reference.js';
import { createTempDir } from '../../helpers/temp-dir.js';

describe('parseRepoReference', () => {
  it.each([
    ['Qwen/Qwen3-0.6B', { id: 'Qwen/Qwen3-0.6B', revision: 'main' }],
    ['a/b_c.d@v1.0', { id: 'a/b_c.d', revision: 'v1.0' }],
    ['a/b@refs/pr/1', { id: 'a/b', revision: 'refs/pr/1' }],
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
    'hf:a/b/',
    'hf:a/b/..',
    'hf:a/b/c//d',
    'hf:a/b/c/../d',
    'hf:a/b/c\\d',
    'hf:a/b/c\0',
    `hf:a/b/${'c'.repeat(300)}`,
    'a/b/c@main',
  ])('takes %s for a path', (reference) => {
    expect(parseRepoReference(reference)).toBeUndefined();
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
