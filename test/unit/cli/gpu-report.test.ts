import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { render } from '../../../scripts/gpu-report.mjs';

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

describe('gpu-report', () => {
  it('says what has not run, and shows the machine code', () => {
    const page = render({ benches: [], checks: [], sass: SASS });
    expect(page).toContain('No kernel has been measured on a GPU');
    expect(page).toContain('The checks have not run on a GPU');
    expect(page).toContain(
      '| `fp8_linear_warpgroup_kernel<Shape<128>>` | 168 | 384 | 200000 | 1 (19 %) | QGMMA 8, UTMALDG.2D 4 |',
    );
    expect(page).not.toContain('Bar');
  });

  it('shows measurements with their bars, failures and what was left out', () => {
    const measured = {
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
    } as const;
    const streamed = {
      case: 'wint8 1 x 4096 x 4096',
      microseconds: 9.51,
      gigabytesPerSecond: 1764,
      teraflops: 3.5,
      bandwidthShare: 0.367,
      computeShare: 0.0035,
      bfloat16Microseconds: 14.2,
      bar: ['bandwidth', 0.6],
      isMet: false,
    } as const;
    const rows = [measured, streamed, { case: 'a', isLeftOut: true }, { case: 'b', error: 'no memory' }];
    const page = render({ benches: [{ device: DEVICE, rows }], checks: [], sass: SASS });
    expect(page).toContain('### Sample GPU (a made-up sample, not a measurement), PyTorch 2.0, CUDA 13.0');
    expect(page).toContain(
      "| block fp8 4096 x 7168 x 16384 | 801 | 303 | 6 % | 1201 | 61 % | 1300 | none | 1200 TFLOPS, bf16's time: met |",
    );
    expect(page).toContain(
      '| wint8 1 x 4096 x 4096 | 9.5 | 1764 | 37 % | 3.5 | 0 % | 14.2 |  | 60 % of bandwidth: not met |',
    );
    expect(page).toContain('| a | not run: out of time |');
    expect(page).toContain('| b | failed: no memory |');
    expect(page).not.toContain('No kernel has been measured');
  });

  it('shows how many checks failed', () => {
    const checks = [{ name: 'fp8_linear', cases: 60, failures: [{}], worst_rms: 0.00123 }];
    const page = render({ benches: [], checks: [{ device: DEVICE, checks }], sass: SASS });
    expect(page).toContain('| fp8_linear | 60 | 1 | 1.2e-3 |');
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

  it('names what is missing without a GPU, and refuses what it does not know', () => {
    const bench = run('bench');
    expect(bench.status).toBe(3);
    expect(bench.stderr).toMatch(/^Expected (PyTorch|a CUDA device)/);
    expect(run('prove').status).toBe(2);
    expect(run('sanitize', '--tool', 'valgrind').stderr).toContain("invalid choice: 'valgrind'");
  });
});
