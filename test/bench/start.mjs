// Time from `fdq serve` to ready and to the first token: quantizing while loading, weights from the cache, and a
// folder of `fdq convert`, each with its files in the page cache and without, in turns.
// Usage: node test/bench/start.mjs CHECKPOINT [scheme] [rounds]; needs `npm run build` and a disk with room for two copies.
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, realpathSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { fileURLToPath } from 'node:url';

const [model, scheme = 'wint8', rounds = '5'] = process.argv.slice(2);
const root = path.join(path.dirname(fileURLToPath(import.meta.url)), '..', '..');
const bin = path.join(root, 'bin', 'run.js');
const dir = mkdtempSync(path.join(os.tmpdir(), 'fdq-start-'));
const folder = path.join(dir, 'folder');
const cacheDir = path.join(dir, 'cache');
const PROMPT = 'one two three four five six seven eight';

const WAYS = {
  online: [model, '-q', scheme, '--no-cache'],
  cache: [model, '-q', scheme, '--cache-dir', cacheDir],
  folder: [folder],
};

async function fillCache() {
  const { loadModel } = await import(path.join(root, 'dist', 'load', 'load-model.js'));
  const cache = { dir: cacheDir, maxBytes: Infinity, minSeconds: 0, isRequired: true };
  const memory = { utilization: 0.9, maxModelLen: 512, maxNumSeqs: 1 };
  const options = {
    model,
    quantization: scheme,
    dtype: 'auto',
    threads: os.availableParallelism(),
    cache,
    memory,
  };
  const loaded = await loadModel(options, { phase() {}, warn: console.error });
  await loaded.saveToCache({ isBusy: () => false, signal: new globalThis.AbortController().signal });
  await loaded.runner.close();
}

/** Drops the files of a folder from the page cache, or reads them into it. */
function setPages(place, isCold) {
  for (const entry of readdirSync(place, { recursive: true, withFileTypes: true })) {
    if (entry.isDirectory()) continue;
    const file = realpathSync(path.join(entry.parentPath ?? entry.path, entry.name));
    const args = isCold ? ['iflag=nocache', 'count=0'] : ['of=/dev/null', 'bs=1M'];
    spawnSync('dd', [`if=${file}`, ...args], { stdio: 'ignore' });
  }
}

async function measure(args) {
  const start = performance.now();
  const child = spawn(
    process.execPath,
    [bin, 'serve', ...args, '--port', '0', '--kv-cache-memory', '256MiB', '--json'],
    {
      stdio: ['ignore', 'pipe', 'ignore'],
    },
  );
  let stdout = '';
  const { url, loadSeconds } = await new Promise((resolve, reject) => {
    child.stdout.on('data', (chunk) => {
      stdout += chunk;
      if (stdout.endsWith('\n}\n')) resolve(JSON.parse(stdout).result);
    });
    child.once('exit', () => reject(new Error(stdout)));
  });
  const ready = (performance.now() - start) / 1000;
  await globalThis.fetch(`${url}/v1/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ prompt: PROMPT, max_tokens: 1, temperature: 0 }),
  });
  const firstToken = (performance.now() - start) / 1000;
  child.kill('SIGTERM');
  await once(child, 'exit');
  return { load: loadSeconds, ready, firstToken };
}

function median(values) {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];
}

try {
  await fillCache();
  spawnSync(process.execPath, [bin, 'convert', model, '-q', scheme, '-o', folder], { stdio: 'inherit' });
  for (const isCold of [false, true]) {
    const results = Object.fromEntries(Object.keys(WAYS).map((way) => [way, []]));
    for (let round = 0; round < Number(rounds); round++) {
      for (const [way, args] of Object.entries(WAYS)) {
        for (const place of [model, dir]) setPages(place, isCold);
        results[way].push(await measure(args));
      }
    }
    for (const [way, runs] of Object.entries(results)) {
      const line = { pages: isCold ? 'cold' : 'warm', way, scheme };
      for (const what of ['load', 'ready', 'firstToken']) {
        const seconds = median(runs.map((run) => run[what]));
        const online = median(results.online.map((run) => run[what]));
        line[`${what}Seconds`] = Number(seconds.toFixed(2));
        line[`${what}OfOnline`] = Number((seconds / online).toFixed(2));
      }
      console.log(JSON.stringify(line));
    }
  }
} finally {
  rmSync(dir, { recursive: true, force: true });
}
