import { describe, expect, it } from 'vitest';
import { createTextStreamFactory } from '../../../src/text/detokenizer.js';
import { loadTokenizer } from '../../../src/text/tokenizer.js';
import { tokenizerFolder } from '../../helpers/fixture-folders.js';

const OPTIONS = { skipSpecialTokens: true, spacesBetweenSpecialTokens: true };

describe('text streams', () => {
  it('hold a character back until its last byte came', async () => {
    const tokenizer = await loadTokenizer(tokenizerFolder('qwen3'));
    const stream = createTextStreamFactory(tokenizer)({ ...OPTIONS, promptTokenIds: [] });
    const ids = tokenizer.encode('日', false);
    expect(ids).toHaveLength(3);
    expect(ids.map((id) => stream.push(id))).toEqual(['', '', '日']);
  });

  it('replace a character that never ends', async () => {
    const tokenizer = await loadTokenizer(tokenizerFolder('qwen3'));
    const stream = createTextStreamFactory(tokenizer)({ ...OPTIONS, promptTokenIds: [] });
    const [first] = tokenizer.encode('日', false);
    expect(stream.push(first as number)).toBe('');
    expect(stream.end()).toBe('\ufffd');
  });

  it('complete a character that begins in the prompt', async () => {
    const tokenizer = await loadTokenizer(tokenizerFolder('mistral'));
    const ids = tokenizer.encode('日', false).slice(-3);
    const stream = createTextStreamFactory(tokenizer)({ ...OPTIONS, promptTokenIds: ids.slice(0, 2) });
    expect(stream.push(ids[2] as number)).toBe('日');
  });

  it('drop the leading space of a SentencePiece text only at its very start', async () => {
    const tokenizer = await loadTokenizer(tokenizerFolder('mistral'));
    const streams = createTextStreamFactory(tokenizer);
    const ids = tokenizer.encode('the', false);
    const atStart = streams({ ...OPTIONS, promptTokenIds: [] });
    expect(ids.map((id) => atStart.push(id)).join('')).toBe('the');
    const afterPrompt = streams({ ...OPTIONS, promptTokenIds: ids });
    expect(ids.map((id) => afterPrompt.push(id)).join('')).toBe(' the');
    const afterBos = streams({ ...OPTIONS, promptTokenIds: [1] });
    expect(ids.map((id) => afterBos.push(id)).join('')).toBe('the');
  });

  it('treat ids outside the vocabulary as nothing', async () => {
    const tokenizer = await loadTokenizer(tokenizerFolder('qwen2'));
    const stream = createTextStreamFactory(tokenizer)({ ...OPTIONS, promptTokenIds: [] });
    expect(stream.push(tokenizer.vocabSize + 10) + stream.end()).toBe('');
  });
});
