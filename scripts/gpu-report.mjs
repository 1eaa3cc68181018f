// Writes docs/performance-gpu.md from what custom-ops/cuda/verify/run.py wrote and from the machine code.
//   --bench FILE    of `run.py bench --json FILE`; may be given again
//   --check FILE    of `run.py check --json FILE`; may be given again
// Without results the page says that nothing has run. The library must be built (npm run build:cuda).
import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import process from 'node:process';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { format, resolveConfig } from 'prettier';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const page = path.join(root, 'docs', 'performance-gpu.md');

function toTable(header, rows) {
  return [header, header.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
}

const percent = (share) => (share === undefined ? '' : `${Math.round(100 * share)} %`);
const number = (value) =>
  value === undefined ? '' : value >= 100 ? String(Math.round(value)) : value.toFixed(1);

function barOf({ bar, isMet }) {
  if (bar === undefined) return '';
  const [kind, least] = bar;
  const text = kind === 'TFLOPS' ? `${least} TFLOPS, bf16's time` : `${percent(least)} of bandwidth`;
  return isMet === undefined ? text : `${text}: ${isMet ? 'met' : 'not met'}`;
}

function benchRow(row) {
  const { microseconds, teraflops } = row;
  if (microseconds === undefined) {
    return [row.case, row.isLeftOut ? 'not run: out of time' : `failed: ${row.error}`, ...Array(7).fill('')];
  }
  return [
    row.case,
    number(microseconds),
    number(row.gigabytesPerSecond),
    percent(row.bandwidthShare),
    teraflops === 0 ? '' : number(teraflops),
    teraflops === 0 ? '' : percent(row.computeShare),
    number(row.bfloat16Microseconds),
    row.scaledMmError === undefined ? number(row.scaledMmMicroseconds) : 'none',
    barOf(row),
  ];
}

function deviceLine({ name, torch, cuda, isSample }) {
  const sample = isSample === true ? ' (a made-up sample, not a measurement)' : '';
  return `${name}${sample}${torch === undefined ? '' : `, PyTorch ${torch}, CUDA ${cuda}`}`;
}

function renderBench({ device, rows }) {
  const header = [
    ...['Case', 'us', 'GB/s', 'of its limit', 'TFLOPS', 'of its limit'],
    ...['bf16 us', '`_scaled_mm` us', 'Bar'],
  ];
  return `### ${deviceLine(device)}\n\n${toTable(header, rows.map(benchRow))}`;
}

function renderCheck({ device, checks }) {
  const rows = checks.map(({ name, cases, failures, worst_rms: worst }) => [
    name,
    cases,
    failures.length,
    worst === 0 ? '' : worst.toExponential(1),
  ]);
  return `### ${deviceLine(device)}\n\n${toTable(['Check', 'Cases', 'Failed', 'Worst error'], rows)}`;
}

function renderSass(sass) {
  const rows = sass.map((row) => [
    `\`${row.name}\``,
    row.registers,
    row.threads,
    row.sharedBytes,
    `${row.blocks} (${row.percent} %)`,
    Object.entries(row.instructions)
      .map(([name, count]) => `${name} ${count}`)
      .join(', '),
  ]);
  return toTable(['Kernel', 'Registers', 'Threads', 'Shared bytes', 'Blocks (warps)', 'Instructions'], rows);
}

/** The page. `benches` and `checks` are contents of the driver's JSON files, `sass` that of check-sass --json. */
export function render({ benches, checks, sass }) {
  const speeds =
    benches.length === 0
      ? 'No kernel has been measured on a GPU: there are no figures yet.'
      : 'A case is tokens x outputs x inputs. Medians of replayed CUDA graphs between events, over so many copies of the\n' +
        'operands that none is in the L2 cache when its turn comes. Limits are those of the SXM parts: 3.35 (H100) and 4.8 TB/s\n' +
        '(H200), 1979 TFLOPS in e4m3 and 989 in bfloat16. The bars were set for an H200. `bf16` is `torch.matmul` of the same\n' +
        `shape, \`_scaled_mm\` PyTorch's product with the same kind of scales.\n\n${benches.map(renderBench).join('\n\n')}`;
  const proofs =
    checks.length === 0
      ? 'The checks have not run on a GPU. In emulation they pass, which proves neither speed nor what PTX and emulation could\n' +
        'disagree about, see [CUDA kernels](cuda.md).'
      : 'Random shapes against the bytes of the CPU or float64; the worst error is a root mean square relative to the output.\n\n' +
        checks.map(renderCheck).join('\n\n');
  return `# Performance on GPUs

Written by \`node scripts/gpu-report.mjs\` from results of \`custom-ops/cuda/verify/run.py\`.

## Speed

${speeds}

## Proof

${proofs}

## Machine code

sm_90a, by \`npm run check:sass\`; no kernel spills registers. Blocks a multiprocessor and the share of its warps are calculated
from registers, threads and shared memory.

${renderSass(sass)}
`;
}

function readSass() {
  const script = path.join(root, 'scripts', 'check-sass.mjs');
  const { status, stdout, stderr } = spawnSync(process.execPath, [script, '--json'], {
    encoding: 'utf8',
    maxBuffer: 1 << 26,
  });
  if (status !== 0) throw new Error(stderr);
  return JSON.parse(stdout);
}

async function main(args) {
  const { values } = parseArgs({
    args,
    options: { bench: { type: 'string', multiple: true }, check: { type: 'string', multiple: true } },
  });
  const read = (files) => (files ?? []).map((file) => JSON.parse(readFileSync(file, 'utf8')));
  const text = render({ benches: read(values.bench), checks: read(values.check), sass: readSass() });
  writeFileSync(page, await format(text, { ...(await resolveConfig(page)), filepath: page }));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  try {
    await main(process.argv.slice(2));
  } catch (error) {
    console.error(error.message);
    process.exitCode = 1;
  }
}
