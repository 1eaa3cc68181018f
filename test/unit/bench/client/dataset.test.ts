import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { makeRequests, openDataset, type DatasetOptions } from '../../../../src/bench/client/dataset.js';
import type { TokenSupply } from '../../../../src/bench/client/random-prompts.js';
import type { PromptRequest } from '../../../../src/bench/client/record.js';
import { loadTokenizer } from '../../../../src/text/tokenizer.js';
import { tokenizerFolder } from '../../../helpers/fixture-folders.js';

const BASE: DatasetOptions = {
  name: 'random',
  numPrompts: 4,
  seed: 1,
  isChat: false,
  random: { inputLen: 20, outputLen: 8, rangeRatio: 0, prefixLen: 0 },
  customOutputLen: 256,
  shuffle: false,
  oversample: true,
};

const make = (changes: Partial<DatasetOptions>, tokens: TokenSupply = {}): readonly PromptRequest[] =>
  makeRequests(openDataset({ ...BASE, ...changes }), tokens);

function file(text: string): string {
  const folder = mkdtempSync(path.join(tmpdir(), 'fdq-test-'));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  const written = path.join(folder, 'data.json');
  writeFileSync(written, text);
  return written;
}

const sharegpt = (text: string, changes: Partial<DatasetOptions> = {}, tokens?: TokenSupply) =>
  make({ name: 'sharegpt', path: file(text), sharegptOutputLen: 9, ...changes }, tokens);
const custom = (text: string, changes: Partial<DatasetOptions> = {}, tokens?: TokenSupply) =>
  make({ name: 'custom', path: file(text), ...changes }, tokens);

const turns = (...values: readonly string[]): object => ({
  conversations: values.map((value) => ({ from: 'human', value })),
});

describe('random prompts', () => {
  const serverIds = Array.from({ length: 300 }, (_, i) => i * 7);

  it('are ids that the server knows, of the wanted length', () => {
    const requests = make({}, { serverIds });
    expect(requests).toHaveLength(4);
    for (const { prompt, inputTokens, maxTokens } of requests) {
      expect(prompt).toHaveLength(20);
      expect((prompt as number[]).every((id) => serverIds.includes(id))).toBe(true);
      expect([inputTokens, maxTokens]).toEqual([20, 8]);
    }
    expect(new Set(requests.map(({ prompt }) => JSON.stringify(prompt))).size).toBe(4);
  });

  it('are the same for the same seed and others for another', () => {
    expect(make({}, { serverIds })).toEqual(make({}, { serverIds }));
    expect(make({ seed: 2 }, { serverIds })).not.toEqual(make({}, { serverIds }));
  });

  it('begin alike with a prefix, on top of their length', () => {
    const random = { ...BASE.random, prefixLen: 5 };
    const prompts = make({ random }, { serverIds }).map(({ prompt }) => prompt as number[]);
    expect(new Set(prompts.map((ids) => String(ids.slice(0, 5)))).size).toBe(1);
    expect(new Set(prompts.map((ids) => ids[5])).size).toBeGreaterThan(1);
    expect(prompts.map(({ length }) => length)).toEqual([25, 25, 25, 25]);
  });

  it('have lengths from 1 - ratio to 1 + ratio', () => {
    const random = { ...BASE.random, rangeRatio: 0.5 };
    const requests = make({ random, numPrompts: 500 }, { serverIds });
    const lengths = requests.map(({ inputTokens }) => inputTokens ?? 0);
    const outputs = requests.map(({ maxTokens }) => maxTokens);
    expect([Math.min(...lengths), Math.max(...lengths)]).toEqual([10, 30]);
    expect([Math.min(...outputs), Math.max(...outputs)]).toEqual([4, 12]);
  });

  it('are text of exactly the wanted tokens with a tokenizer', async () => {
    const tokenizer = await loadTokenizer(tokenizerFolder('qwen3'));
    for (const { prompt, inputTokens } of make({ numPrompts: 10 }, { tokenizer, serverIds })) {
      expect(tokenizer.encode(prompt as string)).toHaveLength(20);
      expect(inputTokens).toBe(20);
    }
  });

  it('are words where tokens are unknown, and always for a chat', () => {
    for (const requests of [make({}), make({ isChat: true }, { serverIds })]) {
      const { prompt, inputTokens } = requests[0]!;
      expect(prompt).toMatch(/^( [a-z]{4}){20}$/);
      expect(inputTokens).toBeNull();
    }
  });

  it('are refused when they would be empty, and with a file', () => {
    const empty = { ...BASE.random, inputLen: 0 };
    expect(() => make({ random: empty })).toThrow('--random-input-len 0 leaves the shortest prompt empty');
    expect(make({ random: { ...empty, prefixLen: 1 } })).toHaveLength(4);
    expect(() => make({ path: 'x.json' })).toThrow('Expected no --dataset-path for random prompts.');
  });
});

it('takes files that begin with a byte order mark', () => {
  const [ours] = sharegpt(`\uFEFF${JSON.stringify([turns('a', 'b')])}`);
  expect(ours?.prompt).toBe('a');
  expect(custom('\uFEFF{"prompt": "c"}\r\n')[0]?.prompt).toBe('c');
});

describe('sharegpt', () => {
  it('takes the first two turns, and leaves out entries that have fewer', () => {
    const text = JSON.stringify([turns('one', 'answer', 'more'), turns('alone'), turns('two [,"]}', 'b')]);
    expect(sharegpt(text, { numPrompts: 2 })).toEqual([
      { prompt: 'one', inputTokens: null, maxTokens: 9 },
      { prompt: 'two [,"]}', inputTokens: null, maxTokens: 9 },
    ]);
  });

  it('generates as many tokens as the answer has, and leaves out what vLLM leaves out', async () => {
    const tokenizer = await loadTokenizer(tokenizerFolder('qwen3'));
    const words = (count: number): string => 'word '.repeat(count).trim();
    const text = JSON.stringify([
      turns(words(40), words(60)),
      turns('x', words(60)),
      turns(words(40), 'y'),
      turns(words(4000), words(60)),
    ]);
    const { sharegptOutputLen: _, ...options } = { ...BASE, sharegptOutputLen: 1 };
    const dataset = openDataset({ ...options, name: 'sharegpt', path: file(text), oversample: false });
    expect(makeRequests(dataset, { tokenizer })).toEqual([
      {
        prompt: words(40),
        inputTokens: tokenizer.encode(words(40)).length,
        maxTokens: tokenizer.encode(words(60)).length,
      },
    ]);
    expect(() => makeRequests(dataset, {})).toThrow('counted by a tokenizer, and none is given');
  });

  it('repeats prompts when there are too few, unless told not to', () => {
    const text = JSON.stringify([turns('one', 'a'), turns('two', 'b')]);
    const prompts = sharegpt(text, { numPrompts: 7 }).map(({ prompt }) => prompt);
    expect(prompts).toHaveLength(7);
    expect(prompts.slice(0, 2)).toEqual(['one', 'two']);
    expect(sharegpt(text, { numPrompts: 7, oversample: false })).toHaveLength(2);
  });

  it('draws them in a seeded order', () => {
    const text = JSON.stringify(Array.from({ length: 30 }, (_, i) => turns(`p${i}`, 'a')));
    const order = (seed: number) =>
      sharegpt(text, { shuffle: true, seed, numPrompts: 30 }).map(({ prompt }) => prompt);
    expect(order(1)).toEqual(order(1));
    expect(order(1)).not.toEqual(order(2));
    expect(new Set(order(1)).size).toBe(30);
  });

  it.each([
    ['{"conversations": []}', /Line 1: expected an array/],
    ['[\n{"conversations": []},\n{"conversations": 1 2}\n]', /Line 3 of .*data.json: not JSON/],
    ['[\n{"conversations": [}\n]', /data.json: Line 2: the array does not end after this entry/],
    [
      '[\n  {"conversations": []},\n\n  {"turns": []}]',
      /Line 4 of .*: expected "conversations" to be an array but received nothing\./,
    ],
    [
      '[\n{"conversations": [{"value": 7}, {"value": "b"}]}]',
      /Line 2 of .*: expected "conversations\[0\]\.value" to be a string but received 7\./,
    ],
    ['[\n{"conversations": []}', /Line 2: the array does not end after this entry/],
    ['[]', /holds no entries/],
    ['[{"conversations": [{"value": "a"}]}]', /has no prompt that can be used/],
  ])('says what is wrong with %j, and where', (text, message) => {
    expect(() => sharegpt(text)).toThrow(message);
  });
});

describe('custom', () => {
  it('reads a prompt a line, with lengths of its own where asked', () => {
    const text = '{"prompt": "one", "output_tokens": 5}\n\n{"prompt": "two", "output_tokens": 6}\r\n';
    expect(custom(text, { numPrompts: 2 }).map(({ prompt, maxTokens }) => [prompt, maxTokens])).toEqual([
      ['one', 256],
      ['two', 256],
    ]);
    const own = custom(text, { numPrompts: 2, customOutputLen: -1 });
    expect(own.map(({ maxTokens }) => maxTokens)).toEqual([5, 6]);
    expect(() => custom('{"prompt": "one"}', { customOutputLen: -1 })).toThrow('"output_tokens"');
  });

  it('reads messages for a chat', () => {
    const messages = [{ role: 'user', content: 'hi' }];
    const text = JSON.stringify({ messages });
    expect(custom(text, { isChat: true, numPrompts: 1 })[0]?.prompt).toEqual(messages);
    expect(() => custom(text)).toThrow(/Line 1 of .*: "messages" need --backend openai-chat/);
  });

  it.each([
    ['{"prompt": "a"}\n{"prompt": ', /Line 2 of .*: not JSON/],
    ['{"prompt": "a"}\n\n{"text": "b"}', /Line 3 of .*: expected either "prompt" or "messages"/],
    ['{"prompt": 5}', /Line 1 of .*: expected "prompt" to be a string but received 5\./],
    [
      '{"prompt": "a", "output_tokens": 0}',
      /Line 1 of .*: expected "output_tokens" to be above 0 but received 0\./,
    ],
    ['7', /Line 1 of .*: expected the entry to be an object but received 7\./],
    ['\n\n', /holds no entries/],
  ])('says what is wrong with %j, and where', (text, message) => {
    expect(() => custom(text)).toThrow(message);
  });

  it('needs a file that is there', () => {
    expect(() => make({ name: 'custom' })).toThrow('--dataset-name custom needs a file.');
    const read = (): unknown => make({ name: 'custom', path: '/nowhere/prompts.jsonl' });
    expect(read).toThrow(expect.objectContaining({ code: 'invalid_dataset', exitCode: 3 }));
  });
});
