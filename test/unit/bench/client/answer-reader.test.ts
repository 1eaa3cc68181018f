import { describe, expect, it } from 'vitest';
import { AnswerReader, type Answer } from '../../../../src/bench/client/answer-reader.js';

const event = (value: unknown): string =>
  `data: ${typeof value === 'string' ? value : JSON.stringify(value)}\n\n`;
const completion = (text: string, finish: string | null = null): string =>
  event({ choices: [{ index: 0, text, finish_reason: finish }] });
const chat = (delta: object, finish: string | null = null): string =>
  event({ choices: [{ index: 0, delta, finish_reason: finish }] });

/** Feeds texts at their times. */
function read(...reads: readonly (readonly [atMs: number, text: string])[]): Answer {
  const reader = new AnswerReader();
  for (const [atMs, text] of reads) reader.feed(text, atMs);
  return reader.end();
}

describe('AnswerReader', () => {
  it('has the time of every chunk with text, of the end, and the usage', () => {
    const answer = read(
      [10, completion('a')],
      [25, completion('b')],
      [27, completion('', 'stop')],
      [40, event({ choices: [], usage: { prompt_tokens: 5, completion_tokens: 7 } })],
      [41, event('[DONE]')],
    );
    expect(answer).toEqual({
      chunksMs: [10, 25],
      endMs: 27,
      text: 'ab',
      usage: { inputTokens: 5, outputTokens: 7 },
      failure: undefined,
    });
  });

  it('does not take the role of a chat for its first token, and takes reasoning for text', () => {
    const answer = read(
      [1, chat({ role: 'assistant', content: '' })],
      [30, chat({ reasoning_content: 'hm' })],
      [50, chat({ content: 'yes' })],
      [60, chat({}, 'stop')],
      [61, event('[DONE]')],
    );
    expect(answer.chunksMs).toEqual([30, 50]);
    expect(answer.text).toBe('hmyes');
    expect(answer.endMs).toBe(60);
  });

  it('puts events of one read at one time, and an event at the read that completes it', () => {
    const long = completion('c', 'length');
    const answer = read(
      [10, completion('a') + completion('b')],
      [20, long.slice(0, 15)],
      [30, long.slice(15)],
    );
    expect(answer.chunksMs).toEqual([10, 10, 30]);
    expect(answer.failure).toBeUndefined();
  });

  it('skips comments and knows CRLF, and takes a last event without its blank line', () => {
    const answer = read(
      [5, ': ping\r\n\r\n'],
      [6, completion('a', 'stop').replaceAll('\n', '\r\n').trimEnd()],
    );
    expect(answer.chunksMs).toEqual([6]);
    expect(answer.failure).toBeUndefined();
  });

  it('has no first token of an answer without text, only its end', () => {
    const answer = read([9, completion('', 'length')], [10, event('[DONE]')]);
    expect(answer).toMatchObject({ chunksMs: [], endMs: 9, failure: undefined });
  });

  it.each([
    ['empty', event('[DONE]')],
    ['empty', ''],
    ['truncated', completion('a')],
    ['stream_error', completion('a') + event({ error: { message: 'out of memory', code: 500 } })],
    ['invalid_stream', event('{"choices": [')],
    ['invalid_stream', event('17')],
    ['empty', event({ choices: [null, 7, 'a', { delta: 'a' }, { delta: { content: 5 } }, { text: [] }] })],
    ['empty', event({ choices: { text: 'a' } })],
  ])('says %s', (kind, text) => {
    expect(read([1, text]).failure?.kind).toBe(kind);
  });

  it.each([{ completion_tokens: -5 }, { completion_tokens: 1.5 }, { completion_tokens: 1e300 }, 7, null])(
    'takes %j for no usage',
    (usage) => {
      expect(read([1, event({ choices: [], usage })]).usage).toBeNull();
    },
  );

  it('repeats the message of the server', () => {
    expect(read([1, event({ error: { message: 'out of memory' } })]).failure?.message).toBe('out of memory');
    expect(read([1, event({ error: 'no' })]).failure?.message).toBe('"no"');
  });
});
