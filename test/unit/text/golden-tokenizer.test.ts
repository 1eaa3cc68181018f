import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { ChatRenderer } from '../../../src/text/chat-template.js';
import type { ChatMessage } from '../../../src/text/chat-template.js';
import { createTextStreamFactory } from '../../../src/text/detokenizer.js';
import { loadTokenizer } from '../../../src/text/tokenizer.js';
import { tokenizerFolders } from '../../helpers/fixture-folders.js';

/** Written by Hugging Face transformers; see README of the fixtures. */
interface Golden {
  readonly texts: readonly {
    readonly text: string;
    readonly ids: readonly number[];
    readonly ids_without_special: readonly number[];
    readonly decoded: string;
    readonly decoded_skip_special: string;
  }[];
  readonly chats: readonly {
    readonly messages: readonly ChatMessage[];
    readonly kwargs: Record<string, unknown>;
    readonly rendered?: string;
    readonly error?: string;
    readonly ids?: readonly number[];
  }[];
}

const folders = tokenizerFolders();

it('has all fixture folders', () => {
  expect([...folders.keys()].sort()).toHaveLength(17);
});

describe.each([...folders])('%s', (_name, dir) => {
  const golden = JSON.parse(readFileSync(join(dir, 'golden_tokenizer.json'), 'utf8')) as Golden;

  it('encodes and decodes every text as transformers does', async () => {
    const tokenizer = await loadTokenizer(dir);
    const streams = createTextStreamFactory(tokenizer);
    for (const { text, ids, ids_without_special, decoded, decoded_skip_special } of golden.texts) {
      expect(tokenizer.encode(text)).toEqual(ids);
      expect(tokenizer.encode(text, false)).toEqual(ids_without_special);
      expect(tokenizer.decode(ids)).toBe(decoded);
      expect(tokenizer.decode(ids, true)).toBe(decoded_skip_special);
      for (const skipSpecialTokens of [false, true]) {
        const stream = streams({ skipSpecialTokens, spacesBetweenSpecialTokens: true, promptTokenIds: [] });
        const pieces = ids.map((id) => stream.push(id));
        expect(pieces.join('') + stream.end()).toBe(skipSpecialTokens ? decoded_skip_special : decoded);
      }
    }
  });

  it('renders every chat as transformers does', async () => {
    const tokenizer = await loadTokenizer(dir);
    const renderer = new ChatRenderer({
      templates: tokenizer.chatTemplates,
      specialTokens: tokenizer.specialTokens,
    });
    try {
      for (const { messages, kwargs, rendered, error, ids } of golden.chats) {
        const { add_generation_prompt, tools, ...rest } = kwargs;
        const rendering = renderer.render(messages, {
          addGenerationPrompt: add_generation_prompt === true,
          kwargs: rest,
          ...(Array.isArray(tools) ? { tools } : {}),
        });
        if (error !== undefined) {
          await expect(rendering).rejects.toMatchObject({
            code: 'invalid_request',
            message: expect.stringContaining(error) as string,
          });
          continue;
        }
        expect(await rendering).toBe(rendered);
        expect(tokenizer.encode(rendered ?? '', false)).toEqual(ids);
      }
    } finally {
      await renderer.close();
    }
  });
});
