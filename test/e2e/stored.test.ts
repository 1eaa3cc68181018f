import { cp, writeFile } from 'node:fs/promises';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { ROOT, runCli } from '../helpers/cli.js';
import { serveProcess } from '../helpers/serve-process.js';
import { createTempDir } from '../helpers/temp-dir.js';

const OFFLINE = path.join(ROOT, 'test', 'fixtures', 'offline');

interface Golden {
  readonly prompts: readonly {
    readonly ids: readonly number[];
    readonly greedy: readonly number[];
    readonly greedy_text: string;
  }[];
}

describe('fdq serve of a checkpoint that is quantized already', () => {
  // These do not round inputs, so their greedy texts are those of the golden files.
  it.each(['qwen3_gptq_g128', 'llama_gptq_g32_asym_actorder', 'qwen3_awq_g128', 'qwen3_ct_w4a16_g128'])(
    'continues as %s does',
    async (name) => {
      const folder = path.join(OFFLINE, name);
      const golden = JSON.parse(readFileSync(path.join(folder, 'golden.json'), 'utf8')) as Golden;
      const server = await serveProcess([folder, '--dtype', 'float32']);
      for (const { ids, greedy, greedy_text: text } of golden.prompts) {
        const response = await fetch(`${server.url}/v1/completions`, {
          method: 'POST',
          headers: { 'content-type': 'application/json' },
          body: JSON.stringify({
            prompt: ids,
            temperature: 0,
            max_tokens: greedy.length,
            ignore_eos: true,
          }),
        });
        const body = (await response.json()) as { choices?: { text: string }[] };
        expect(body.choices?.[0]?.text).toBe(text);
      }
      expect(await server.stop()).toBe(0);
    },
  );

  it('refuses another scheme for what is stored', async () => {
    const folder = path.join(OFFLINE, 'qwen3_gptq_g128');
    const { code, stderr } = await runCli(['serve', folder, '--port', '0', '--quantization', 'wint8']);
    expect(code).toBe(2);
    expect(stderr).toContain('already_quantized');
    expect(stderr).toContain('as wint4:g128 (gptq), but wint8 was asked for');
  });

  it('refuses a version that it does not load, by name', async () => {
    const dir = path.join(await createTempDir(), 'model');
    await cp(path.join(OFFLINE, 'qwen3_awq_g128'), dir, { recursive: true });
    const file = path.join(dir, 'config.json');
    const config = JSON.parse(readFileSync(file, 'utf8')) as { readonly quantization_config: object };
    const quantization_config = { ...config.quantization_config, version: 'gemv' };
    await writeFile(file, JSON.stringify({ ...config, quantization_config }));
    const { code, stderr } = await runCli(['serve', dir, '--port', '0']);
    expect(code).toBe(3);
    expect(stderr).toContain('quantization_config.version is "gemv"; fdq loads awq checkpoints with "gemm"');
  });
});

describe('fdq convert of a checkpoint that is quantized already', () => {
  const source = path.join(OFFLINE, 'llama_gptq_g32_asym_actorder');

  it.each([
    ['as it is stored', []],
    ['anew', ['--requantize', '--quantization', 'wint8']],
  ])('writes %s what serve computes', async (_, flags) => {
    const output = path.join(await createTempDir(), 'converted');
    const { code, stdout } = await runCli(['convert', source, '--output', output, '--verify', ...flags]);
    expect(code).toBe(0);
    expect(stdout).toMatch(/verified: \d+ tensors and \d+ logits are equal/);
  });
});
