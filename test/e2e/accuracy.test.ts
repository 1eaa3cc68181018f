import { readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { ROOT } from '../helpers/cli.js';
import { serveProcess } from '../helpers/serve-process.js';

const DEMO = path.join(ROOT, 'models', 'demo');
/** Share of the prompts an answer may differ from the reference's accuracy by. */
const BOUND = 0.01;
const MAX_TOKENS = 96;
const STREAMS = 48;

interface Prompt {
  readonly id: string;
  readonly messages: readonly { readonly role: string; readonly content: string }[];
  readonly expected: unknown;
  readonly match: 'exact' | 'json' | 'contains';
}

const prompts = readFileSync(path.join(DEMO, 'eval.jsonl'), 'utf8')
  .trim()
  .split('\n')
  .map((line) => JSON.parse(line) as Prompt);
const reference = JSON.parse(readFileSync(path.join(DEMO, 'reference.json'), 'utf8')) as {
  readonly schemes: Readonly<Record<string, { readonly accuracy: number }>>;
};

/** The rules of reference.json's accuracy_definition. */
function isCorrect({ match, expected }: Prompt, answer: string): boolean {
  if (match === 'exact') return answer.trim() === expected;
  if (match === 'json') return sameJson(answer, expected as string);
  let from = 0;
  return (expected as readonly string[]).every((part) => {
    const at = answer.indexOf(part, from);
    from = at + part.length;
    return at >= 0;
  });
}

function sameJson(answer: string, expected: string): boolean {
  const canonical = (value: unknown): string =>
    JSON.stringify(value, (_key, inner: unknown) =>
      typeof inner === 'object' && inner !== null && !Array.isArray(inner)
        ? Object.fromEntries(Object.entries(inner).sort(([a], [b]) => (a < b ? -1 : 1)))
        : inner,
    );
  try {
    return canonical(JSON.parse(answer)) === canonical(JSON.parse(expected));
  } catch {
    return false;
  }
}

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
  ])('%s as %s over a %s KV cache', { timeout: 300_000 }, async (scheme, key, kv) => {
    const flags = ['--quantization', scheme, '--dtype', 'float32', '--kv-cache-dtype', kv];
    const server = await serveProcess([DEMO, ...flags]);
    const accuracy = await measureAccuracy(server.url);
    expect(Math.abs(accuracy - (reference.schemes[key]?.accuracy ?? NaN))).toBeLessThanOrEqual(BOUND);
    expect(await server.stop()).toBe(0);
  });
});
