import { cp, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { beforeAll, afterAll, describe, expect, it } from 'vitest';
import { runCli } from '../helpers/cli.js';
import { fixtureFolder } from '../helpers/fixture-model.js';

/** A model whose tokenizer cannot be read: whatever is said instead was found before it was tried. */
let model: string;
let dir: string;
beforeAll(async () => {
  dir = await mkdtemp(path.join(tmpdir(), 'fdq-test-'));
  model = path.join(dir, 'model');
  await cp(fixtureFolder('qwen3'), model, { recursive: true });
  await writeFile(path.join(model, 'tokenizer.json'), '{');
  await writeFile(path.join(model, 'text.txt'), 'words');
});
afterAll(() => rm(dir, { recursive: true, force: true }));

const NOWHERE = '{"ignore": ["no-such-layer"]}';

describe('a large tokenizer is not waited for to hear of', () => {
  it.each([
    [
      'a layer that is not there',
      ['serve', '--port', '0', '-q', 'wint8', '--quantization-config', NOWHERE],
      /no-such-layer/,
    ],
    ['a length', ['serve', '--port', '0', '--max-model-len', '50000'], /40960/],
    [
      'a cache that is too small',
      ['serve', '--port', '0', '--kv-cache-memory', '1000'],
      /Expected --kv-cache-memory to be at least \d+ bytes for one block/,
    ],
    [
      'a cache too small for a length',
      ['serve', '--port', '0', '--kv-cache-memory', '64KiB', '--max-model-len', '4k'],
      /Expected --kv-cache-memory to be at least \d+ bytes for the 4096 tokens of --max-model-len/,
    ],
    [
      'a window',
      ['bench', 'quality', '--text', 'text.txt', '--window', '50000'],
      /at most the model's 40960/,
    ],
    ['a missing text', ['bench', 'quality', '--text', 'absent.txt'], /absent\.txt/],
    ['a layer to measure', ['bench', 'quality', '-q', NOWHERE, '--text', 'text.txt'], /no-such-layer/],
  ])('%s', async (_what, args, message) => {
    const { code, stderr } = await runCli([...args, '--model', model], { cwd: model });
    expect(stderr).toMatch(message);
    expect(stderr).not.toContain('tokenizer');
    expect(code).toBe(2);
  });

  it('is read where nothing else is wrong', async () => {
    const { stderr } = await runCli(['bench', 'quality', '--text', 'text.txt', '--model', model], {
      cwd: model,
    });
    expect(stderr).toContain('tokenizer.json');
  });
});
