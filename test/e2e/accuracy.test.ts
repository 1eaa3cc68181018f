import { describe, expect, it } from 'vitest';
import { isCorrect, readPrompts, type Prompt } from '../../src/bench/quality/prompts.js';
import { DEMO, DEMO_PROMPTS, reference } from '../helpers/demo-model.js';
import { serveProcess } from '../helpers/serve-process.js';

/** Share of the prompts an answer may differ from the reference's accuracy by. */
const BOUND = 0.01;
const MAX_TOKENS = 96;
const STREAMS = 48;

async function ask(url: string, prompt: Prompt): Promise<string> {
  const response = await fetch(`${url}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ messages: prompt.messages, temperature: 0, max_tokens: MAX_TOKENS }),
  });
  const body = (await response.json()) as { choices?: { message: { content: string } }[] };
  return body.choices?.[0]?.message.content ?? `status ${response.status}`;
}

async function measureAccuracy(url: string): Promise<number> {
  const prompts = await readPrompts(DEMO_PROMPTS, '--prompts');
  let next = 0;
  let correct = 0;
  const worker = async (): Promise<void> => {
    for (let prompt = prompts[next++]; prompt !== undefined; prompt = prompts[next++]) {
      if (isCorrect(prompt, await ask(url, prompt))) correct++;
    }
  };
  await Promise.all(Array.from({ length: STREAMS }, worker));
  return correct / prompts.length;
}

describe('the demo model answers its held-out prompts through the server', () => {
  it.each([
    ['none', 'bf16', 'float32'],
    ['wint8', 'wint8_channel', 'float32'],
    ['wint4', 'wint4_channel', 'float32'],
    ['wint4:g128', 'wint4_g128', 'float32'],
    ['block_wise_fp8', 'fp8_block128', 'float32'],
    ['none', 'bf16', 'int8'],
    ['none', 'bf16', 'fp8'],
    ['none', 'bf16', 'int4'],
  ])('%s as %s over a %s KV cache', async (scheme, key, kv) => {
    const flags = ['--quantization', scheme, '--dtype', 'float32', '--kv-cache-dtype', kv];
    const server = await serveProcess([DEMO, ...flags]);
    const accuracy = await measureAccuracy(server.url);
    expect(Math.abs(accuracy - (reference.schemes[key]?.accuracy ?? NaN))).toBeLessThanOrEqual(BOUND);
    expect(await server.stop()).toBe(0);
  });
});
