// Time and memory from `fdq serve` to the first token, checkpoint in the page cache.
// Usage: node test/bench/first-token.mjs CHECKPOINT [scheme ...]; needs `npm run build`.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import process from 'node:process';
import { fileURLToPath } from 'node:url';

const [model, ...schemes] = process.argv.slice(2);
const bin = path.join(path.dirname(fileURLToPath(import.meta.url)), '..', '..', 'bin', 'run.js');
const PROMPT = 'one two three four five six seven eight';

for (const scheme of schemes.length > 0 ? schemes : ['wint8', 'wint4', 'block_wise_fp8']) {
  const start = performance.now();
  const child = spawn(
    process.execPath,
    [bin, 'serve', model, '-q', scheme, '--port', '0', '--kv-cache-memory', '1GiB'],
    {
      stdio: ['ignore', 'ignore', 'pipe'],
    },
  );
  let stderr = '';
  const ready = await new Promise((resolve, reject) => {
    child.stderr.on('data', (chunk) => {
      stderr += chunk;
      const line = /^Ready: (\S+).*$/m.exec(stderr);
      if (line !== null) resolve(line);
    });
    child.once('exit', () => reject(new Error(stderr)));
  });
  const readySeconds = (performance.now() - start) / 1000;
  await globalThis.fetch(`${ready[1]}/v1/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ prompt: PROMPT, max_tokens: 1, temperature: 0 }),
  });
  const firstTokenSeconds = (performance.now() - start) / 1000;
  const peak = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${child.pid}/status`, 'utf8'))?.[1];
  console.log(
    JSON.stringify({
      scheme,
      readySeconds: Number(readySeconds.toFixed(2)),
      firstTokenSeconds: Number(firstTokenSeconds.toFixed(2)),
      peakRssMB: Math.round(Number(peak) / 1000),
      ready: ready[0],
    }),
  );
  child.kill('SIGTERM');
  await once(child, 'exit');
}
