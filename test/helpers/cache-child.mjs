// Serves the demo model with a cache that keeps whatever took any time, asks it something once the attempt to keep the
// weights has ended, and prints what the user would read: node cache-child.mjs CACHE_DIR
import path from 'node:path';
import process from 'node:process';
import { SERVE_FLAGS } from '../../dist/cli/flags.js';
import { createLogger } from '../../dist/cli/logger.js';
import { toServeOptions } from '../../dist/cli/serve-options.js';
import { resolveSettings, valuesOf } from '../../dist/cli/settings.js';
import { serve } from '../../dist/serve.js';

const [dir = ''] = process.argv.slice(2);
const model = path.join(import.meta.dirname, '..', '..', 'models', 'demo');
const flags = { model, quantization: 'wint4', port: '0', 'max-model-len': '256' };
const settings = resolveSettings(SERVE_FLAGS, { flags, environment: {}, configDir: '/no-such-folder' });
const cache = { dir, maxBytes: Infinity, minSeconds: 0, isRequired: false };
const lines = [];
let resolve;
const saved = new Promise((settle) => (resolve = settle));
const hear = (kind) => (line) => {
  lines.push([kind, line]);
  if (/quantized weights/.test(line)) resolve();
};
const server = await serve(
  { ...toServeOptions(valuesOf(settings)), cache },
  {
    phase: () => undefined,
    warn: hear('warn'),
    info: hear('info'),
    log: createLogger({ level: 'critical', format: 'json' }),
  },
);
await server.ready;
await saved;
const response = await globalThis.fetch(`${server.url}/v1/completions`, {
  method: 'POST',
  headers: { 'content-type': 'application/json' },
  body: JSON.stringify({ prompt: '15+85=', max_tokens: 4, temperature: 0 }),
});
const { choices } = await response.json();
await server.abort();
process.stdout.write(JSON.stringify({ lines, answer: choices[0].text }));
