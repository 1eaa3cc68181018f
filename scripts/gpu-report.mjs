// Writes docs/performance-gpu.md from what custom-ops/cuda/verify/run.py wrote and from the machine code.
//   --bench FILE       of `run.py bench --json FILE`; may be given again
//   --check FILE       of `run.py check --json FILE`; may be given again
//   --sanitize FILE    of `run.py sanitize --json FILE`; may be given again
// `run.py all --out DIR` writes the three of them. Without results the page says that nothing has run. The library must be built (npm run build:cuda).
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

const describeBar = ([kind, least]) =>
  kind === 'TFLOPS' ? `${least} TFLOPS, bf16's time` : `${percent(least)} of bandwidth`;

/** What a row reaches of its bar, and whether that is enough. */
function judgeBar(row) {
  if (row === undefined || row.isLeftOut) return ['', 'not measured'];
  if (row.microseconds === undefined) return ['', `failed: ${row.error}`];
  const { teraflops, microseconds, bfloat16Microseconds, bandwidthShare } = row;
  const beside =
    bfloat16Microseconds === undefined
      ? ''
      : `, ${number(microseconds)} us beside ${number(bfloat16Microseconds)} us`;
  const measured = row.bar[0] === 'TFLOPS' ? `${number(teraflops)} TFLOPS${beside}` : percent(bandwidthShare);
  return [measured, row.isMet === undefined ? 'not judged' : row.isMet ? 'met' : 'missed'];
}

/** A table of every case with a bar; without a bench nothing is measured. */
function renderBars(cases, bench) {
  const rows = new Map((bench?.rows ?? []).map((row) => [row.case, row]));
  const barred = cases.filter(({ bar }) => bar !== null);
  const results = barred.map((each) => [each, judgeBar(rows.get(each.case))]);
  const count = (verdict) => results.filter(([, [, found]]) => found === verdict).length;
  const table = toTable(
    ['Case', 'Bar', 'Measured', 'Result'],
    results.map(([{ case: name, bar }, [measured, verdict]]) => [name, describeBar(bar), measured, verdict]),
  );
  return `Of ${barred.length} bars ${count('met')} are met, ${count('missed')} missed and ${count('not measured')} not measured.\n\n${table}`;
}

function benchRow(row) {
  const { microseconds, teraflops } = row;
  if (microseconds === undefined) {
    const reason = row.isLeftOut ? 'not run: out of time' : `failed: ${row.error}`;
    return [row.case, reason, '', '', '', '', ...besidePyTorch(row)];
  }
  return [
    row.case,
    number(microseconds),
    number(row.gigabytesPerSecond),
    percent(row.bandwidthShare),
    teraflops === 0 ? '' : number(teraflops),
    teraflops === 0 ? '' : percent(row.computeShare),
    ...besidePyTorch(row),
  ];
}

/** `none` where PyTorch has no kernel or it failed. */
function besidePyTorch(row) {
  const cell = (time, error) => (error === undefined ? number(time) : 'none');
  return [
    cell(row.bfloat16Microseconds, row.bfloat16Error),
    cell(row.scaledMmMicroseconds, row.scaledMmError),
  ];
}

/** A command that found no GPU leaves none. */
function deviceLine(device) {
  if (device === null) return 'No device';
  const { name, torch, cuda, isSample } = device;
  const sample = isSample === true ? ' (a made-up sample, not a measurement)' : '';
  return `${name}${sample}${torch === undefined ? '' : `, PyTorch ${torch}, CUDA ${cuda}`}`;
}

function renderBench(bench, cases) {
  const header = [
    ...['Case', 'us', 'GB/s', 'of its limit', 'TFLOPS', 'of its limit'],
    ...['bf16 us', '`_scaled_mm` us'],
  ];
  const table = toTable(header, bench.rows.map(benchRow));
  return `### ${deviceLine(bench.device)}\n\n${renderBars(cases, bench)}\n\nAll cases:\n\n${table}`;
}

function renderCheck({ device, checks }) {
  const rows = checks.map(({ name, cases, leftOut, failures, worst_rms: worst }) => [
    name,
    cases,
    leftOut ?? 0,
    failures.length,
    worst === 0 ? '' : worst.toExponential(1),
  ]);
  const header = ['Check', 'Cases', 'Left out', 'Failed', 'Worst error'];
  return `### ${deviceLine(device)}\n\n${toTable(header, rows)}`;
}

/** A row a check, a column a tool. */
function renderSanitized({ runs }) {
  const tools = [...new Set(runs.map(({ tool }) => tool))];
  const names = [...new Set(runs.map(({ check }) => check))];
  const statusOf = (tool, name) =>
    runs.find((run) => run.tool === tool && run.check === name)?.status ?? 'not run';
  const rows = names.map((name) => [name, ...tools.map((tool) => statusOf(tool, name))]);
  return toTable(['Check', ...tools.map((tool) => `\`${tool}\``)], rows);
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

/**
 * The page. `benches`, `checks` and `sanitized` are contents of the driver's JSON files, `cases` is what it lists,
 * `sass` the output of check-sass --json.
 */
export function render({ benches, checks, sanitized, cases, sass }) {
  const speeds =
    benches.length === 0
      ? `No kernel has been measured on a GPU: there are no figures yet. The bars were set for an H200.\n\n${renderBars(cases)}`
      : 'A case is tokens x outputs x inputs, those that there are. Medians of replayed CUDA graphs between events, over so many copies of the\n' +
        'operands that none is in the L2 cache when its turn comes. Limits are those of the SXM parts: 3.35 (H100) and 4.8 TB/s\n' +
        '(H200), 1979 TFLOPS in e4m3 and 989 in bfloat16. The bars were set for an H200; elsewhere a share is of that\n' +
        "device's own limit. `bf16` is `torch.matmul` of the same shape, `_scaled_mm` PyTorch's product with the same kind of scales,\n" +
        `without fast accumulation.\n\n${benches.map((bench) => renderBench(bench, cases)).join('\n\n')}`;
  const proofs =
    checks.length === 0
      ? 'The checks have not run on a GPU. In emulation they pass, which proves neither speed nor what PTX and emulation could\n' +
        'disagree about, see [CUDA kernels](cuda.md).'
      : 'Random shapes against the bytes of the CPU or float64; the worst error is a root mean square relative to the output.\n\n' +
        checks.map(renderCheck).join('\n\n');
  const tools =
    sanitized.length === 0
      ? 'compute-sanitizer has not run.'
      : `A few small cases of each check under compute-sanitizer.\n\n${sanitized.map(renderSanitized).join('\n\n')}`;
  return `# Performance on GPUs

Written by \`node scripts/gpu-report.mjs\` from results of \`custom-ops/cuda/verify/run.py\`.

## Speed

${speeds}

## Proof

${proofs}

${tools}

## Machine code

sm_90a, by \`npm run check:sass\`; no kernel spills registers. Blocks a multiprocessor and the share of its warps are calculated
from registers, threads and shared memory.

${renderSass(sass)}
`;
}

/** What a program prints as JSON. */
function readOutput(program, args) {
  const { status, error, stdout, stderr } = spawnSync(program, args, {
    encoding: 'utf8',
    maxBuffer: 1 << 26,
  });
  if (status !== 0) throw new Error(error?.message ?? stderr);
  return JSON.parse(stdout);
}

/** A result that was cut short or is of another command is refused by name. */
function readResult(file, key) {
  let content;
  try {
    content = JSON.parse(readFileSync(file, 'utf8'));
  } catch (error) {
    throw new Error(`Expected results of run.py in ${file} but it cannot be read: ${error.message}.`);
  }
  if (!Array.isArray(content?.[key])) {
    throw new Error(
      `Expected '${key}' in ${file} but it has none: it is not of run.py, or of another command.`,
    );
  }
  return content;
}

async function main(args) {
  const option = { type: 'string', multiple: true };
  const { values } = parseArgs({ args, options: { bench: option, check: option, sanitize: option } });
  const read = (files, key) => (files ?? []).map((file) => readResult(file, key));
  const driver = path.join(root, 'custom-ops', 'cuda', 'verify', 'run.py');
  const text = render({
    benches: read(values.bench, 'rows'),
    checks: read(values.check, 'checks'),
    sanitized: read(values.sanitize, 'runs'),
    cases: readOutput('python3', [driver, 'list', '--json']),
    sass: readOutput(process.execPath, [path.join(root, 'scripts', 'check-sass.mjs'), '--json']),
  });
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
