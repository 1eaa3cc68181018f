// What each scheme costs and gives on the demo model, as one Markdown table.
// Usage: node test/bench/schemes.mjs [--write] [scheme ...]; --write puts it into docs/quantization.md.
// Needs `npm run build`. Schemes that cannot be used online are converted to a temporary folder first.
import { spawnSync } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { measureQuality } from '../../dist/bench/quality/measure-quality.js';
import { loadModel } from '../../dist/load/load-model.js';
import { SCHEMES } from '../../dist/quant/registry.js';

const ROOT = path.join(import.meta.dirname, '..', '..');
const BIN = path.join(ROOT, 'bin', 'run.js');
const DEMO = path.join(ROOT, 'models', 'demo');
const DOCS = path.join(ROOT, 'docs', 'quantization.md');
const MARKERS = ['<!-- measured -->', '<!-- measuredstop -->'];
const THREADS = os.availableParallelism();
const PREFILL = 512;
const DECODE_STEPS = 96;
const REPEATS = 3;
/** Room for the prompts and steps below. */
const MEMORY = { utilization: 0.9, numBlocks: 64, maxBatchedTokens: 1024, maxModelLen: 512 };
/** Rounding of the sums behind a KL divergence. */
const KL_NOISE = 1e-8;

const args = process.argv.slice(2);
const named = args.filter((arg) => !arg.startsWith('--'));
const schemes = SCHEMES.filter(({ name }) => name !== 'none' && (named.length === 0 || named.includes(name)));
const quiet = { phase: () => undefined, warn: () => undefined };

const load = (model, quantization, dtype) =>
  loadModel({ model, quantization, dtype, kvCacheDtype: 'auto', threads: THREADS, memory: MEMORY }, quiet);

/** The folder to load and the flag to load it with. */
async function prepare(scheme, folder) {
  if (scheme.online) return { model: DEMO, quantization: scheme.name };
  const model = path.join(folder, scheme.name);
  const convert = ['convert', DEMO, '--quantization', scheme.name, '--output', model];
  const { status, stderr } = spawnSync(process.execPath, [BIN, ...convert], { encoding: 'utf8' });
  if (status !== 0) throw new Error(stderr);
  return { model };
}

/** Figures of one run of the service behind `fdq bench quality`, by metric. */
async function qualityOf({ model, quantization }, options) {
  const report = await measureQuality(
    {
      model,
      locate: { offline: true },
      reference: DEMO,
      schemes: [{ quantization }],
      kvTypes: ['auto'],
      threads: THREADS,
      utilization: 0.9,
      windows: { window: 256, stride: 256 },
      maxTokens: 96,
      maxNumSeqs: 48,
      layers: false,
      maxReferenceBytes: 0,
      ...options,
    },
    { stage: () => undefined },
  );
  return Object.fromEntries(report.scenarios[0].metrics.map(({ id, value }) => [id, value]));
}

const seconds = async (work) => {
  const start = process.hrtime.bigint();
  await work();
  return Number(process.hrtime.bigint() - start) / 1e9;
};

const step = (ids, start) => ({
  tokenIds: Int32Array.from(ids),
  positions: Int32Array.from(ids, (_, i) => start + i),
  queryStarts: Int32Array.of(0, ids.length),
  contextLengths: Int32Array.of(start + ids.length),
  blockTables: Int32Array.from({ length: PREFILL / 16 }, (_, i) => i),
  blockTableStride: PREFILL / 16,
  logitIndices: Int32Array.of(ids.length - 1),
});

/** Tokens a second of one sequence relative to the unquantized model, which takes turns with it; the best of a few. */
async function speedOf(runner, base) {
  const ids = Array.from({ length: PREFILL }, (_, i) => (i * 7919 + 13) % 2000);
  const best = [base, runner].map(() => ({ prefill: Infinity, decode: Infinity }));
  for (let i = 0; i < REPEATS; i++) {
    for (const [m, model] of [base, runner].entries()) {
      const prefill = await seconds(() => model.logits(step(ids, 0)));
      const decode = await seconds(async () => {
        for (let at = 0; at < DECODE_STEPS; at++) await model.logits(step([at], at));
      });
      best[m] = {
        prefill: Math.min(best[m].prefill, prefill),
        decode: Math.min(best[m].decode, decode),
      };
    }
  }
  const [unquantized, quantized] = best;
  return {
    prefill: unquantized.prefill / quantized.prefill,
    decode: unquantized.decode / quantized.decode,
    tokensPerSecond: DECODE_STEPS / quantized.decode,
  };
}

async function measureScheme(base, name, source) {
  const { perplexity, kl, top1 } = await qualityOf(source, {
    dtype: 'float32',
    text: path.join(DEMO, 'eval.txt'),
  });
  const { accuracy } = await qualityOf(source, { dtype: 'auto', prompts: path.join(DEMO, 'eval.jsonl') });
  const model = await load(source.model, source.quantization, 'auto');
  const speed = await speedOf(model.runner, base.runner);
  const weights = model.layers.reduce((sum, { bytesAfter }) => sum + bytesAfter, 0);
  const phases = Object.values(model.seconds);
  await model.runner.close();
  return {
    scheme: name,
    accuracy,
    perplexity,
    kl,
    agreement: top1,
    kilobytes: weights / 1000,
    loadSeconds: phases.reduce((sum, value) => sum + value, 0),
    ...speed,
  };
}

function formatRow(row) {
  return [
    `\`${row.scheme}\``,
    `${(100 * row.accuracy).toFixed(1)} %`,
    row.perplexity.toFixed(4),
    row.kl < KL_NOISE ? '0' : row.kl.toExponential(2),
    `${(100 * row.agreement).toFixed(2)} %`,
    row.kilobytes.toFixed(0),
    row.loadSeconds.toFixed(2),
    row.prefill.toFixed(2),
    `${row.decode.toFixed(2)} (${row.tokensPerSecond.toFixed(0)})`,
  ];
}

function formatTable(rows) {
  const head = [
    'Scheme',
    'Accuracy',
    'Perplexity',
    'KL, nats',
    'Same top token',
    'Weights of linear layers, kB',
    'Load, s',
    'Prefill, × `none`',
    'Decode, × `none` (tokens/s)',
  ];
  const lines = [head, head.map(() => '---'), ...rows.map(formatRow)];
  return lines.map((cells) => `| ${cells.join(' | ')} |`).join('\n');
}

async function writeDocs(table) {
  const text = await readFile(DOCS, 'utf8');
  const [start, end] = MARKERS.map((marker) => text.indexOf(marker));
  if (start < 0 || end < start) throw new Error(`${DOCS} has no ${MARKERS.join(' ... ')}`);
  await writeFile(DOCS, `${text.slice(0, start + MARKERS[0].length)}\n\n${table}\n\n${text.slice(end)}`);
  spawnSync('npx', ['prettier', '--write', DOCS], { stdio: 'ignore', cwd: ROOT });
}

const folder = await mkdtemp(path.join(os.tmpdir(), 'fdq-schemes-'));
try {
  const base = await load(DEMO, 'none', 'auto');
  const rows = [await measureScheme(base, 'none', { model: DEMO, quantization: 'none' })];
  for (const scheme of schemes) {
    rows.push(await measureScheme(base, scheme.name, await prepare(scheme, folder)));
    process.stderr.write(`${JSON.stringify(rows.at(-1))}\n`);
  }
  await base.runner.close();
  const table = formatTable(rows);
  process.stdout.write(`${os.cpus()[0].model}, ${THREADS} threads\n\n${table}\n`);
  if (args.includes('--write')) await writeDocs(table);
} finally {
  await rm(folder, { recursive: true, force: true });
}
