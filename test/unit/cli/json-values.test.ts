import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { mergeJsonObjects, parseJsonObject } from '../../../src/cli/json-values.js';
import { UserError } from '../../../src/errors.js';

let folder = '';
beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'fdq-json-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

function write(name: string, text: string): string {
  const file = path.join(folder, name);
  writeFileSync(file, text);
  return `@${file}`;
}

function failureOf(text: string): UserError {
  try {
    parseJsonObject(text, '--x');
  } catch (error) {
    if (error instanceof UserError) return error;
    throw error;
  }
  throw new Error('accepted');
}

describe('parseJsonObject', () => {
  it('reads JSON from the command line', () => {
    expect(parseJsonObject('{"a": [1, {"b": null}]}', '--x')).toEqual({ a: [1, { b: null }] });
  });

  it.each([
    ['a.json', '{"ignore": ["re:.*o_proj"], "targets": {"a.b": "wint8"}}'],
    ['a.yaml', 'ignore: ["re:.*o_proj"]\ntargets:\n  a.b: wint8 # why\n'],
    ['a', 'ignore:\n- re:.*o_proj\ntargets: {"a.b": wint8}\n'],
    ['A.JSON', '{"ignore":["re:.*o_proj"],"targets":{"a.b":"wint8"}}'],
  ])('reads the file %s', (name, text) => {
    expect(parseJsonObject(write(name, text), '--x')).toEqual({
      ignore: ['re:.*o_proj'],
      targets: { 'a.b': 'wint8' },
    });
  });

  it.each(['[1]', 'null', '"wint8"', '3'])('refuses %s', (text) => {
    expect(failureOf(text).message).toContain('Expected --x to be a JSON object but received');
    expect(failureOf(write('a.yaml', text)).message).toContain('Expected --x to be a JSON object');
  });

  it.each(['{', '{a: 1}', "{'a': 1}", '{"a": 1,}'])('refuses %s, which is no JSON', (text) => {
    expect(failureOf(text).message).toContain('does not parse');
    const file = failureOf(write('a.json', text));
    expect(file.message).toContain(`does not parse in ${folder}`);
  });

  it('refuses a key that stands twice', () => {
    const text = '{"targets": {"a": "wint8", "a": "wint4"}}';
    for (const source of [text, write('a.json', text), write('a.yaml', text)]) {
      expect(failureOf(source).message).toMatch(/does not parse.*keys must be unique/i);
    }
  });

  it('refuses what is no file of settings', () => {
    expect(failureOf(`@${folder}`).suggestions.join()).toContain('Name a regular file');
    expect(failureOf(`@${folder}/absent`).suggestions.join()).toContain('There is no such file');
    expect(failureOf(write('big', ' '.repeat(1024 * 1024 + 1))).suggestions.join()).toContain(
      'at most 1048576',
    );
    const pipe = path.join(folder, 'pipe');
    execFileSync('mkfifo', [pipe]);
    expect(failureOf(`@${pipe}`).suggestions.join()).toContain('Name a regular file');
  });

  it('refuses a file that unfolds to a large one', () => {
    const levels = Array.from({ length: 9 }, (_, level) => {
      const before = Array.from({ length: 9 }, () => (level === 0 ? '"x"' : `*a${level - 1}`));
      return `a${level}: &a${level} [${before.join(', ')}]`;
    });
    expect(failureOf(write('bomb.yaml', levels.join('\n'))).message).toContain('does not parse');
  });

  it('keeps names of object properties apart from properties', () => {
    const parsed = parseJsonObject('{"__proto__": {"a": 1}}', '--x');
    expect(Object.keys(parsed)).toEqual(['__proto__']);
    const merged = mergeJsonObjects([parsed, { b: 2 }], '--x');
    expect(Object.keys(merged)).toEqual(['__proto__', 'b']);
    expect((merged as { a?: number }).a).toBeUndefined();
  });
});

describe('mergeJsonObjects', () => {
  it('joins lists and merges objects', () => {
    expect(
      mergeJsonObjects(
        [
          { a: [1], b: { c: 1, d: { e: 2 } } },
          { b: { d: { f: 3 } }, g: 'x' },
          { a: [2], g: 'x' },
        ],
        '--x',
      ),
    ).toEqual({ a: [1, 2], b: { c: 1, d: { e: 2, f: 3 } }, g: 'x' });
  });

  it.each([
    [[{ a: 1 }, { a: 2 }], 'Expected one value for "a" of --x but received 1 and 2.'],
    [[{ a: { b: 'x' } }, { a: { b: ['x'] } }], 'one value for "a.b" of --x'],
  ])('refuses %j', (objects, message) => {
    expect(() => mergeJsonObjects(objects, '--x')).toThrow(message);
  });
});
