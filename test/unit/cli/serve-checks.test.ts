import { mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { checkServeOptions } from '../../../src/cli/serve-checks.js';
import type { ServeOptions } from '../../../src/cli/serve-options.js';
import { createTempDir } from '../../helpers/temp-dir.js';

const BASE: ServeOptions = {
  model: 'm',
  offline: false,
  dtype: 'auto',
  device: 'auto',
  memory: {
    memoryUtilization: 0.9,
    kvCacheDtype: 'auto',
    blockSize: 16,
    enablePrefixCaching: true,
    longPrefillTokenThreshold: 0,
  },
  chat: { generationConfig: 'auto', overrideGenerationConfig: {}, maxLogprobs: 20 },
  http: {
    host: '127.0.0.1',
    port: 8000,
    servedModelNames: [],
    apiKeys: [],
    rootPath: '',
    maxConcurrency: 1,
    requestLog: 'none',
  },
  gracefulShutdownMs: 0,
};

const chat = (options: Partial<ServeOptions['chat']>): ServeOptions => ({
  ...BASE,
  chat: { ...BASE.chat, ...options },
});
const http = (options: Partial<ServeOptions['http']>): ServeOptions => ({
  ...BASE,
  http: { ...BASE.http, ...options },
});

describe('checkServeOptions', () => {
  it.each<[string, string, ServeOptions]>([
    ['ready-file', 'a file that can be written', { ...BASE, readyFile: '/no/such/folder/ready' }],
    ['ready-file', 'a file that can be written', { ...BASE, readyFile: import.meta.dirname }],
    ['tokenizer', 'a folder with tokenizer.json', { ...BASE, tokenizer: 'Qwen/Qwen3-0.6B' }],
    ['chat-template', 'a readable Jinja file', chat({ chatTemplate: './no-such.jinja' })],
    ['chat-template', 'a readable Jinja file', chat({ chatTemplate: import.meta.dirname })],
    ['chat-template', 'to be a Jinja template', chat({ chatTemplate: '{% for m in messages %}' })],
    ['ssl-keyfile', 'a readable file', http({ ssl: { keyFile: '/no.pem', certFile: '/no.pem' } })],
    ['metrics-port', 'other than --port', http({ metricsPort: 8000 })],
    ['override-generation-config', 'from 0 to 2', chat({ overrideGenerationConfig: { temperature: '1' } })],
    [
      'override-generation-config',
      'whole number',
      chat({ overrideGenerationConfig: { max_new_tokens: 1.5 } }),
    ],
    ['override-generation-config', 'token id', chat({ overrideGenerationConfig: { eos_token_id: [1, -1] } })],
    ['override-generation-config', '"num_beams"', chat({ overrideGenerationConfig: { num_beams: 4 } })],
  ])('refuses --%s: %s', (flag, what, options) => {
    expect(() => checkServeOptions(options)).toThrow(
      expect.objectContaining({
        code: 'usage',
        param: flag,
        message: expect.stringContaining(what) as string,
      }),
    );
  });

  it('names the nearest default of sampling', () => {
    expect(() => checkServeOptions(chat({ overrideGenerationConfig: { temperatur: 1 } }))).toThrow(
      expect.objectContaining({ suggestions: ['Did you mean temperature?'] }),
    );
  });

  it('takes what is there', async () => {
    const dir = await createTempDir();
    const [template, key] = [path.join(dir, 't.jinja'), path.join(dir, 'key.pem')];
    await Promise.all([template, key, path.join(dir, 'tokenizer.json')].map((file) => writeFile(file, '')));
    await mkdir(path.join(dir, 'run'));
    const override = {
      temperature: 0,
      top_p: 1,
      top_k: -1,
      min_p: 0,
      repetition_penalty: 1.1,
      max_new_tokens: 1,
      eos_token_id: 3,
    };
    const options: ServeOptions = {
      ...http({ ssl: { keyFile: key, certFile: key }, metricsPort: 8001 }),
      chat: { ...BASE.chat, chatTemplate: template, overrideGenerationConfig: override },
      tokenizer: dir,
      readyFile: path.join(dir, 'run', 'ready'),
    };
    expect(() => checkServeOptions(options)).not.toThrow();
    expect(() => checkServeOptions(chat({ chatTemplate: '{{ messages }}' }))).not.toThrow();
    expect(() => checkServeOptions(http({ port: 0, metricsPort: 0 }))).not.toThrow();
  });
});
