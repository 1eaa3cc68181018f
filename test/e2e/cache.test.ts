import { readdirSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { SERVE_FLAGS } from '../../src/cli/flags.js';
import { createLogger } from '../../src/cli/logger.js';
import { toServeOptions } from '../../src/cli/serve-options.js';
import { resolveSettings, valuesOf } from '../../src/cli/settings.js';
import { serve, type RunningServer } from '../../src/serve.js';
import { ROOT } from '../helpers/cli.js';
import { createTempDir } from '../helpers/temp-dir.js';

interface Started {
  readonly server: RunningServer;
  readonly warnings: readonly string[];
  /** Settles with what was said after the ready line. */
  readonly said: Promise<string>;
}

/** Serves the demo model with a cache that keeps whatever took any time. */
async function start(cacheDir: string): Promise<Started> {
  const model = path.join(ROOT, 'models', 'demo');
  const flags = { model, quantization: 'wint4', port: '0', 'max-model-len': '256' };
  const settings = resolveSettings(SERVE_FLAGS, { flags, environment: {}, configDir: '/no-such-folder' });
  const cache = { dir: cacheDir, maxBytes: Infinity, minSeconds: 0, isRequired: true };
  const warnings: string[] = [];
  let say: (line: string) => void = () => undefined;
  const said = new Promise<string>((resolve) => (say = resolve));
  const server = await serve(
    { ...toServeOptions(valuesOf(settings)), cache },
    {
      phase: () => undefined,
      warn: (line) => warnings.push(line),
      info: (line) => say(line),
      log: createLogger({ level: 'critical', format: 'json' }),
    },
  );
  onTestFinished(() => server.abort());
  await server.ready;
  return { server, warnings, said };
}

async function answer({ server }: Started): Promise<unknown> {
  const response = await fetch(`${server.url}/v1/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ prompt: '15+85=', max_tokens: 8, temperature: 0, logprobs: 2 }),
  });
  return ((await response.json()) as { choices: unknown }).choices;
}

describe('fdq serve', () => {
  it('keeps what it quantized once it is ready, and starts from it the next time', async () => {
    const dir = await createTempDir();
    const first = await start(dir);
    expect(await first.said).toMatch(/^Kept the quantized weights for the next start in .*quantized/);
    const expected = await answer(first);
    await first.server.abort();
    const entries = readdirSync(path.join(dir, 'quantized'));
    expect(entries).toHaveLength(1);

    const second = await start(dir);
    expect(await answer(second)).toEqual(expected);
    await second.server.abort();
    expect([...first.warnings, ...second.warnings]).toEqual([]);
    expect(readdirSync(path.join(dir, 'quantized'))).toEqual(entries);
  });

  it('stops at once while it keeps them, and leaves nothing unfinished', async () => {
    const dir = await createTempDir();
    const { server } = await start(dir);
    await server.abort();
    const left = readdirSync(dir, { recursive: true }).filter((name) => String(name).includes('.partial-'));
    expect(left).toEqual([]);
  });
});
