import { describe, expect, it } from 'vitest';
import { splitCommand } from '../../../../src/bench/gate/split-command.js';

describe('splitCommand', () => {
  it.each([
    ['node old/bin/run.js', ['node', 'old/bin/run.js']],
    ["  node  'a b'/run.js\t", ['node', 'a b/run.js']],
    ['node "a \\"b\\" $HOME" c\\ d', ['node', 'a "b" $HOME', 'c d']],
    ["node ''", ['node', '']],
    ['node a"b"\'c\'', ['node', 'abc']],
  ])('splits %j', (text, words) => {
    const { file, args } = splitCommand(text);
    expect([file, ...args]).toEqual(words);
  });

  it.each([
    ['', 'is empty'],
    ['   ', 'is empty'],
    ["node 'a", 'not closed'],
    ['node "a', 'not closed'],
    ['node a\\', 'not closed'],
    ['cd old && node run.js', 'has the shell operator &&'],
  ])('refuses %j', (text, message) => {
    expect(() => splitCommand(text)).toThrow(message);
  });
});
