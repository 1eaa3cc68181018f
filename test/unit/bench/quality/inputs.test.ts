import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { isCorrect, readPrompts } from '../../../../src/bench/quality/prompts.js';
import { readTextFile } from '../../../../src/bench/quality/text.js';
import { createTempDir } from '../../../helpers/temp-dir.js';

async function fileOf(content: string | Uint8Array): Promise<string> {
  const file = path.join(await createTempDir(), 'input');
  await writeFile(file, content);
  return file;
}

describe('a text file', () => {
  it('is read as it is', async () => {
    const content = '\uFEFFüñ\r\n 🙂 ';
    expect((await readTextFile(await fileOf(content), '--text')).text).toBe(content);
  });

  it.each([
    ['is not UTF-8: byte 3', Uint8Array.of(97, 98, 99, 0xff, 97)],
    ['is not UTF-8: byte 1', Uint8Array.of(97, 0xe2, 0x82)],
    ['is not UTF-8: byte 0', Uint8Array.of(0xed, 0xa0, 0x80)],
    ['is empty', ''],
    ['is empty', ' \n\t'],
  ])('that %s is refused', async (what, content) => {
    await expect(readTextFile(await fileOf(content), '--text')).rejects.toMatchObject({
      code: 'usage',
      message: expect.stringContaining(what) as string,
    });
  });

  it('that is missing, or a folder, is refused', async () => {
    const folder = await createTempDir();
    await expect(readTextFile(path.join(folder, 'none.txt'), '--text')).rejects.toThrow('could not read it');
    await expect(readTextFile(folder, '--text')).rejects.toThrow('could not read it');
  });
});

describe('a file of prompts', () => {
  it('has one object a line, with "exact" as the default match', async () => {
    const file = await fileOf(
      '{"prompt": "1 + 1 =", "expected": "2", "id": "a"}\n\n{"messages": [{"role": "user", "content": "x"}], "match": "contains", "expected": ["a", "b"]}\r\n',
    );
    expect(await readPrompts(file, '--prompts')).toEqual([
      { prompt: '1 + 1 =', expected: '2', id: 'a', match: 'exact', line: 1 },
      { messages: [{ role: 'user', content: 'x' }], match: 'contains', expected: ['a', 'b'], line: 3 },
    ]);
  });

  it('may begin with a byte order mark', async () => {
    const file = await fileOf('\uFEFF{"prompt": "a", "expected": "b"}\r\n');
    expect(await readPrompts(file, '--prompts')).toMatchObject([{ prompt: 'a', line: 1 }]);
  });

  it.each([
    ['{"prompt": "a"', 'received'],
    ['[1]', 'expected it to be an object but received an array of 1'],
    ['{"prompt": "a"}', 'expected its "expected" to be a string but received nothing'],
    [
      '{"prompt": "a", "expected": "b", "match": "regex"}',
      'expected its "match" to be one of "exact", "json", "contains" but received "regex"',
    ],
    [
      '{"prompt": "a", "expected": "b", "match": "contains"}',
      'expected its "expected" to be an array but received "b"',
    ],
    [
      '{"prompt": "a", "expected": "{", "match": "json"}',
      'expected its "expected" to be JSON text but received "{"',
    ],
    ['{"expected": "b"}', 'exactly one of'],
    ['{"prompt": "a", "messages": [{"role": "user", "content": "x"}], "expected": "b"}', 'exactly one of'],
    [
      '{"messages": [], "expected": "b"}',
      'expected its "messages" to be an array of at least 1 item but received an empty array',
    ],
    [
      '{"messages": [{"role": "user"}], "expected": "b"}',
      'expected its "messages[0].content" to be a string but received nothing',
    ],
  ])('refuses %s with its line', async (line, what) => {
    const file = await fileOf(`{"prompt": "a", "expected": "b"}\n${line}\n`);
    const reading = readPrompts(file, '--prompts');
    await expect(reading).rejects.toThrow('line 2');
    await expect(reading).rejects.toThrow(what);
  });
});

describe('an answer', () => {
  it.each([
    ['exact', '42', ' 42\n', true],
    ['exact', '42', '42.', false],
    ['json', '{"a": 1, "b": [1, 2]}', '{"b":[1,2],"a":1.0}', true],
    ['json', '{"a": 1, "b": [1, 2]}', '{"b":[2,1],"a":1}', false],
    ['json', '{"a": 1}', '{"a": 1', false],
    ['contains', ['one', 'two'], 'one and two', true],
    ['contains', ['one', 'two'], 'two and one', false],
    ['contains', ['one', 'one'], 'only one', false],
  ] as const)('is held against %s %j: %j', (match, expected, answer, correct) => {
    expect(isCorrect({ match, expected } as Parameters<typeof isCorrect>[0], answer)).toBe(correct);
  });
});
