import { mkdtemp, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { loadTokenizer } from '../../../src/text/tokenizer.js';
import { tokenizerFolder } from '../../helpers/fixture-folders.js';

const dirs: string[] = [];

async function makeFolder(
  change: (tokenizer: Record<string, unknown>) => void,
  config: unknown = {},
): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), 'fdq-tokenizer-'));
  dirs.push(dir);
  const source = await readFile(join(tokenizerFolder('qwen3'), 'tokenizer.json'), 'utf8');
  const tokenizer = JSON.parse(source) as Record<string, unknown>;
  change(tokenizer);
  await writeFile(join(dir, 'tokenizer.json'), JSON.stringify(tokenizer));
  await writeFile(join(dir, 'tokenizer_config.json'), JSON.stringify(config));
  return dir;
}

afterEach(async () => {
  await Promise.all(dirs.splice(0).map((dir) => rm(dir, { recursive: true })));
});

describe('loadTokenizer', () => {
  it('knows special tokens and ids', async () => {
    const tokenizer = await loadTokenizer(tokenizerFolder('llama'));
    expect(tokenizer.specialTokens).toMatchObject({
      bos: '<|begin_of_text|>',
      eos: '<|endoftext|>',
      pad: null,
    });
    expect([tokenizer.bosId, tokenizer.eosId, tokenizer.padId]).toEqual([636, 637, null]);
    expect(tokenizer.specialIds.has(638)).toBe(true);
  });

  it('gives a token its bytes and its spelling', async () => {
    const tokenizer = await loadTokenizer(tokenizerFolder('qwen3'));
    const [id] = tokenizer.encode('é', false);
    expect(tokenizer.tokenBytes(id as number)).toEqual(Uint8Array.of(0xc3));
    expect(tokenizer.tokenString(506)).toBe('<|im_start|>');
    expect(tokenizer.tokenBytes(506, true)).toHaveLength(0);
    expect(tokenizer.tokenString(100_000)).toBeUndefined();
  });

  it('reads a list of named templates and lets a file win over it', async () => {
    const dir = await makeFolder(() => undefined, {
      chat_template: [
        { name: 'default', template: 'plain' },
        { name: 'tool_use', template: 'tools' },
      ],
    });
    expect([...(await loadTokenizer(dir)).chatTemplates]).toEqual([
      ['default', 'plain'],
      ['tool_use', 'tools'],
    ]);
    await writeFile(join(dir, 'chat_template.jinja'), 'from file');
    await mkdir(join(dir, 'additional_chat_templates'));
    await writeFile(join(dir, 'additional_chat_templates', 'rag.jinja'), 'rag');
    const { chatTemplates } = await loadTokenizer(dir);
    expect(chatTemplates.get('default')).toBe('from file');
    expect(chatTemplates.get('rag')).toBe('rag');
  });

  it.each(['qwen3', 'mistral'])('encodes long texts of %s off the thread, to the same ids', async (name) => {
    const tokenizer = await loadTokenizer(tokenizerFolder(name));
    try {
      const text = 'The model writes one new token after another. 日本語 👩‍👧\n'.repeat(400);
      const warm = await tokenizer.encodeText(text);
      expect(warm).toEqual(tokenizer.encode(text));
      expect(await tokenizer.encodeText(text, false)).toEqual(tokenizer.encode(text, false));
      expect(await tokenizer.encodeText('short')).toEqual(tokenizer.encode('short'));
    } finally {
      await tokenizer.close();
    }
  });

  it('names what is missing or broken', async () => {
    const dir = await makeFolder((tokenizer) => (tokenizer['decoder'] = { type: 'WordPiece' }));
    await expect(loadTokenizer(dir)).rejects.toThrow(/decoder fdq cannot run: WordPiece/);
    await writeFile(join(dir, 'tokenizer.json'), '{"model": {');
    await expect(loadTokenizer(dir)).rejects.toMatchObject({
      code: 'invalid_tokenizer',
      message: expect.stringContaining('not JSON') as string,
    });
    await writeFile(join(dir, 'tokenizer.json'), '{"model": {"type": "Unheard"}}');
    await expect(loadTokenizer(dir)).rejects.toMatchObject({ code: 'invalid_tokenizer' });
    await rm(join(dir, 'tokenizer.json'));
    await expect(loadTokenizer(dir)).rejects.toThrow(/has no tokenizer.json/);
  });
});
