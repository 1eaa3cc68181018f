import { readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { ROOT } from '../helpers/cli.js';
import { serveProcess } from '../helpers/serve-process.js';
import { createTempDir } from '../helpers/temp-dir.js';

const DEMO = path.join(ROOT, 'models', 'demo');

async function ask(url: string): Promise<string> {
  const response = await fetch(`${url}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({
      messages: [{ role: 'user', content: 'What is 15 plus 85?' }],
      temperature: 0,
      logprobs: true,
    }),
  });
  const { choices } = (await response.json()) as { choices: { logprobs: unknown }[] };
  return JSON.stringify(choices[0]?.logprobs);
}

describe('fdq serve --quantization auto', () => {
  it('keeps its budget, and the config it saves serves the same numbers', async () => {
    const config = path.join(await createTempDir(), 'plan.json');
    const budget = ['--max-weight-bytes', '5MiB', '--save-quantization-config', config];
    const chosen = await serveProcess(['--model', DEMO, '--quantization', 'auto', ...budget]);
    const weightBytes = await chosen.metric('fdq:weight_bytes');
    const answer = await ask(chosen.url);
    expect(await chosen.stop()).toBe(0);
    expect(weightBytes).toBeLessThanOrEqual(5 * 1024 ** 2);

    const { targets } = JSON.parse(readFileSync(config, 'utf8')) as { targets: Record<string, string> };
    expect(new Set(Object.values(targets)).size).toBeGreaterThan(1);
    const repeated = await serveProcess(['--model', DEMO, '--quantization-config', `@${config}`]);
    expect(await ask(repeated.url)).toBe(answer);
    expect(await repeated.metric('fdq:weight_bytes')).toBe(weightBytes);
    expect(await repeated.stop()).toBe(0);
  });
});
