import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { type Bar, type BenchRow, render } from '../../../scripts/gpu-report.mjs';
import { createTempDir } from '../../helpers/temp-dir.js';

const root = path.join(import.meta.dirname, '..', '..', '..');
const driver = path.join(root, 'custom-ops', 'cuda', 'verify', 'run.py');

const SASS = [
  {
    name: 'fp8_linear_warpgroup_kernel<Shape<128>>',
    registers: 168,
    threads: 384,
    sharedBytes: 200_000,
    blocks: 1,
    percent: 19,
    instructions: { QGMMA: 8, 'UTMALDG.2D': 4 },
  },
];
const DEVICE = { name: 'Sample GPU', torch: '2.0', cuda: '13.0', isSample: true };

const CASES: readonly { case: string; bar: Bar | null }[] = [
  { case: 'block fp8 4096 x 7168 x 16384', bar: ['TFLOPS', 1200] },
  { case: 'block fp8 2048 x 7168 x 16384', bar: ['TFLOPS', 1200] },
  { case: 'wint8 1 x 4096 x 4096', bar: ['bandwidth', 0.6] },
  { case: 'wint4 1 x 8192 x 4096', bar: ['bandwidth', 0.6] },
  { case: 'wint4 1 x 7168 x 16384', bar: ['bandwidth', 0.8] },
  { case: 'weights 7168 x 16384', bar: null },
];
const NOTHING = { benches: [], checks: [], sanitized: [], cases: CASES, sass: SASS };

describe('gpu-report', () => {
  it('says what has not run, and shows the bars and the machine code', () => {
    const page = render(NOTHING);
    expect(page).toContain('No kernel has been measured on a GPU');
    expect(page).toContain('Of 5 bars 0 are met, 0 missed and 5 not measured.');
    expect(page).toContain("| block fp8 4096 x 7168 x 16384 | 1200 TFLOPS, bf16's time |  | not measured |");
    expect(page).toContain('| wint4 1 x 7168 x 16384 | 80 % of bandwidth |  | not measured |');
    expect(page).not.toContain('weights 7168 x');
    expect(page).toContain('The checks have not run on a GPU');
    expect(page).toContain('compute-sanitizer has not run');
    expect(page).toContain(
      '| `fp8_linear_warpgroup_kernel<Shape<128>>` | 168 | 384 | 200000 | 1 (19 %) | QGMMA 8, UTMALDG.2D 4 |',
    );
  });

  it('shows measurements with their bars, failures and what was left out', () => {
    const measured: BenchRow = {
      case: 'block fp8 4096 x 7168 x 16384',
      microseconds: 801.26,
      gigabytesPerSecond: 303.4,
      teraflops: 1200.6,
      bandwidthShare: 0.06,
      computeShare: 0.61,
      bfloat16Microseconds: 1300,
      scaledMmError: 'unsupported',
      bar: ['TFLOPS', 1200],
      isMet: true,
    };
    const streamed: BenchRow = {
      case: 'wint8 1 x 4096 x 4096',
      microseconds: 9.51,
      gigabytesPerSecond: 1764,
      teraflops: 3.5,
      bandwidthShare: 0.367,
      computeShare: 0.0035,
      bfloat16Microseconds: 14.2,
      bar: ['bandwidth', 0.6],
      isMet: false,
    };
    const failed: BenchRow = {
      case: 'wint4 1 x 8192 x 4096',
      error: 'no memory',
      bfloat16Microseconds: 15,
      bar: ['bandwidth', 0.6],
    };
    const unjudged: BenchRow = { ...measured, case: 'block fp8 2048 x 7168 x 16384', bfloat16Error: 'none' };
    const { isMet: _isMet, bfloat16Microseconds: _time, ...rest } = unjudged;
    const rows = [measured, streamed, failed, rest, { case: 'a', isLeftOut: true }];
    const page = render({ ...NOTHING, benches: [{ device: DEVICE, rows }] });
    expect(page).toContain('### Sample GPU (a made-up sample, not a measurement), PyTorch 2.0, CUDA 13.0');
    expect(page).toContain('Of 5 bars 1 are met, 1 missed and 1 not measured.');
    const bars = [
      "| block fp8 4096 x 7168 x 16384 | 1200 TFLOPS, bf16's time | 1201 TFLOPS, 801 us beside 1300 us | met |",
      "| block fp8 2048 x 7168 x 16384 | 1200 TFLOPS, bf16's time | 1201 TFLOPS | not judged |",
      '| wint8 1 x 4096 x 4096 | 60 % of bandwidth | 37 % | missed |',
      '| wint4 1 x 8192 x 4096 | 60 % of bandwidth |  | failed: no memory |',
      '| wint4 1 x 7168 x 16384 | 80 % of bandwidth |  | not measured |',
    ];
    expect(page).toContain(bars.join('\n'));
    expect(page).toContain('| block fp8 4096 x 7168 x 16384 | 801 | 303 | 6 % | 1201 | 61 % | 1300 | none |');
    expect(page).toContain('| wint8 1 x 4096 x 4096 | 9.5 | 1764 | 37 % | 3.5 | 0 % | 14.2 |  |');
    expect(page).toContain('| a | not run: out of time |');
    expect(page).toContain('| wint4 1 x 8192 x 4096 | failed: no memory |  |  |  |  | 15.0 |  |');
    expect(page).not.toContain('No kernel has been measured');
  });

  it('shows how many checks failed, and what the sanitizer said', () => {
    const checks = [
      { name: 'fp8_linear', cases: 60, leftOut: 4, failures: [{}], worst_rms: 0.00123 },
      { name: 'repack_weight', cases: 0, failures: [{}], worst_rms: 0 },
    ];
    const runs = [
      { tool: 'memcheck', check: 'fp8_linear', status: 'clean' },
      { tool: 'racecheck', check: 'fp8_linear', status: 'out of time' },
      { tool: 'memcheck', check: 'repack_weight', status: 'found something' },
    ];
    const page = render({ ...NOTHING, checks: [{ device: DEVICE, checks }], sanitized: [{ runs }] });
    expect(page).toContain('| fp8_linear | 60 | 4 | 1 | 1.2e-3 |\n| repack_weight | 0 | 0 | 1 |  |');
    expect(page).toContain(
      '| Check | `memcheck` | `racecheck` |\n| --- | --- | --- |\n' +
        '| fp8_linear | clean | out of time |\n| repack_weight | found something | not run |',
    );
    expect(render({ ...NOTHING, checks: [{ device: null, checks }] })).toContain('### No device');
    const empty = render({ ...NOTHING, benches: [{ device: null, rows: [] }] });
    expect(empty).toContain('### No device\n\nOf 5 bars 0 are met, 0 missed and 5 not measured.');
  });

  it('refuses files that are not results', async () => {
    const folder = await createTempDir();
    const file = path.join(folder, 'bench.json');
    const report = (...args: string[]): string => {
      const script = path.join(root, 'scripts', 'gpu-report.mjs');
      const result = spawnSync(process.execPath, [script, ...args], { encoding: 'utf8' });
      expect(result.status).toBe(1);
      return result.stderr;
    };
    expect(report('--bench', file)).toMatch(/^Expected results of run\.py in .* cannot be read: ENOENT/);
    writeFileSync(file, '{"rows": [');
    expect(report('--bench', file)).toMatch(/^Expected results of run\.py in .* cannot be read: /);
    writeFileSync(file, '{"checks": []}');
    expect(report('--bench', file)).toMatch(/^Expected 'rows' in .* of another command\.\n$/);
    expect(report('--speed', file)).toContain("Unknown option '--speed'");
  });
});

describe('custom-ops/cuda/verify/run.py', () => {
  function run(...args: string[]): { status: number | null; stdout: string; stderr: string } {
    const env = { ...process.env, CUDA_VISIBLE_DEVICES: '', PYTHONDONTWRITEBYTECODE: '1' };
    return spawnSync('python3', [driver, ...args], { encoding: 'utf8', env });
  }

  it('lists every case once', () => {
    const { status, stdout } = run('list');
    expect(status).toBe(0);
    const cases = stdout.trim().split('\n');
    expect(new Set(cases).size).toBe(cases.length);
    expect(cases).toContain('block fp8 4096 x 7168 x 16384');
    expect(cases).toContain('wint4 16 x 8192 x 4096');
  });

  it('lists bars as the page reads them', () => {
    const cases = JSON.parse(run('list', '--json').stdout) as { case: string; bar: Bar | null }[];
    expect(cases.map((each) => each.case)).toEqual(run('list').stdout.trim().split('\n'));
    const page = render({ ...NOTHING, cases });
    expect(page).toContain('| wint8 16 x 7168 x 16384 | 80 % of bandwidth |  | not measured |');
    expect(page).toContain("| block fp8 8192 x 24576 x 1536 | 1200 TFLOPS, bf16's time |  | not measured |");
  });

  it.each([
    ['measures, judges and resumes, on a device that is made up', 'bench_test.py'],
    ['survives what its workers do, within its budget', 'driver_test.py'],
  ])('%s', (_what, name) => {
    const tests = path.join(root, 'test', 'python', name);
    const { status, stderr } = spawnSync('python3', [tests], { encoding: 'utf8' });
    expect(status, stderr).toBe(0);
    expect(stderr).toMatch(/Ran \d+ tests/);
  });

  it('names what is missing without a GPU, and refuses what it does not know', () => {
    const bench = run('bench');
    expect(bench.status).toBe(3);
    expect(bench.stderr).toMatch(/^Expected (PyTorch|a CUDA device)/);
    expect(run('prove').status).toBe(2);
    expect(run('sanitize', '--tool', 'valgrind').stderr).toContain("invalid choice: 'valgrind'");
  });
});
