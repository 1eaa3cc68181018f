import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { ROOT } from '../../helpers/cli.js';
import { writeProgram, writeToolkit } from '../../helpers/fake-programs.js';
import { createTempDir } from '../../helpers/temp-dir.js';

interface Kernel {
  name: string;
  registers: number;
  spilled: number;
  instructions: Map<string, number>;
}

/** The kernels of docs/performance-gpu.md, as the last build had them: `node scripts/gpu-report.mjs` writes it anew. */
function readPage(): Kernel[] {
  const page = readFileSync(path.join(ROOT, 'docs', 'performance-gpu.md'), 'utf8');
  return page
    .slice(page.indexOf('## Machine code'))
    .split('\n')
    .filter((line) => line.startsWith('| `'))
    .map((line) => {
      const [, name, registers, , , , instructions] = line.split('|').map((cell) => cell.trim());
      const listed = instructions!.split(', ').filter((text) => text !== '');
      const counts = listed.map((text): [string, number] => {
        const [instruction, count] = text.split(' ');
        return [instruction!, Number(count)];
      });
      return {
        name: name!.replaceAll('`', ''),
        registers: Number(registers),
        spilled: 0,
        instructions: new Map(counts),
      };
    });
}

/** Some instruction of the table is the start of another, whose count includes its own. */
function exactCounts(instructions: Map<string, number>): [string, number][] {
  return [...instructions].map(([name, count]) => {
    const longer = [...instructions].filter(([other]) => other !== name && other.startsWith(name));
    return [name, longer.reduce((rest, [, part]) => rest - part, count)];
  });
}

let copy: string;
let home: string;
beforeEach(async () => {
  copy = await createTempDir();
  home = writeToolkit(path.join(copy, 'cuda'), '13.0');
  // Names have no spaces in what cuobjdump prints; c++filt puts them in.
  writeProgram(path.join(home, 'bin', 'cuobjdump'), `cat "${copy}/\${1#-}.txt"`);
  writeProgram(path.join(copy, 'path', 'c++filt'), "tr '~' ' '");
  for (const name of ['check-sass.mjs', 'sass-kernels.mjs', 'cuda-toolkit.mjs', 'cuda-toolkit.txt']) {
    cpSync(path.join(ROOT, 'scripts', name), path.join(copy, 'scripts', name));
  }
  mkdirSync(path.join(copy, 'custom-ops', 'build-cuda', 'sm_90a'), { recursive: true });
  writeFileSync(path.join(copy, 'custom-ops', 'build-cuda', 'sm_90a', 'libfdq_cuda.so'), '');
});

interface Outcome {
  status: number | null;
  stdout: string;
  problems: string[];
}

/** Runs the script over a library of these kernels. */
function check(kernels: readonly Kernel[], ...args: string[]): Outcome {
  const sass = kernels.map(({ name, instructions }) => {
    const lines = exactCounts(instructions).flatMap(([instruction, count]) =>
      Array.from({ length: count }, () => `        /*0010*/   ${instruction} R1, R2 ;`),
    );
    return `\t\tFunction : ${name.replaceAll(' ', '~')}\n${lines.join('\n')}\n`;
  });
  const resources = kernels.map(
    ({ name, registers, spilled }) =>
      ` Function ${name.replaceAll(' ', '~')}:\n  REG:${registers} STACK:${spilled} SHARED:1024 LOCAL:0 CONSTANT[0]:528\n`,
  );
  writeFileSync(path.join(copy, 'sass.txt'), sass.join(''));
  writeFileSync(path.join(copy, 'res-usage.txt'), resources.join(''));
  const result = spawnSync(process.execPath, [path.join(copy, 'scripts', 'check-sass.mjs'), ...args], {
    encoding: 'utf8',
    env: { CUDA_HOME: home, PATH: `${path.join(copy, 'path')}:/usr/bin:/bin` },
  });
  const problems = result.stderr.split('\n').filter((line) => line !== '');
  return { status: result.status, stdout: result.stdout, problems };
}

/** The kernels with the one called `name` replaced. */
function replace(name: string, change: (kernel: Kernel) => Kernel): Kernel[] {
  const kernels = readPage();
  expect(kernels.map((kernel) => kernel.name)).toContain(name);
  return kernels.map((kernel) => (kernel.name === name ? change(kernel) : kernel));
}

/** The name of a kernel of block fp8 in tiles. */
function blockKernel(): string {
  const start = 'fp8_linear_warpgroup_kernel<tiles::Shape<128, 128, 2>, 0';
  return readPage().find(({ name }) => name.startsWith(start))!.name;
}

describe('scripts/check-sass.mjs', () => {
  it('passes the kernels of docs/performance-gpu.md and prints them', () => {
    const kernels = readPage();
    expect(kernels.length).toBeGreaterThan(50);
    const { status, stdout, problems } = check(kernels, '--json');
    expect(problems).toEqual([]);
    expect(status).toBe(0);
    const rows = JSON.parse(stdout) as { name: string; instructions: Record<string, number> }[];
    const found = new Map(rows.map((row) => [row.name, row.instructions]));
    for (const { name, instructions } of kernels) {
      expect(found.get(name), name).toEqual(Object.fromEntries(instructions));
    }
  });

  it('fails on a spilled register', () => {
    const name = blockKernel();
    expect(check(replace(name, (kernel) => ({ ...kernel, spilled: 8 })))).toMatchObject({
      status: 1,
      problems: [`${name}: 8 bytes of spilled registers or local memory`],
    });
  });

  it.each(['QGMMA', 'UTMALDG.2D.MULTICAST', 'USETMAXREG'])('fails without %s', (instruction) => {
    const name = blockKernel();
    const drop = (kernel: Kernel): Kernel => {
      const rest = [...kernel.instructions].filter(([each]) => each !== instruction);
      return { ...kernel, instructions: new Map(rest) };
    };
    expect(check(replace(name, drop))).toMatchObject({
      status: 1,
      problems: [`${name}: no ${instruction} instruction`],
    });
  });

  it('fails without any TMA, whose multicast is one too', () => {
    const name = blockKernel();
    const drop = (kernel: Kernel): Kernel => ({
      ...kernel,
      instructions: new Map([...kernel.instructions].filter(([each]) => !each.startsWith('UTMALDG'))),
    });
    expect(check(replace(name, drop)).problems).toEqual([
      `${name}: no UTMALDG.2D instruction`,
      `${name}: no UTMALDG.2D.MULTICAST instruction`,
    ]);
  });

  it('fails on a kernel that the table does not know', () => {
    const kernels = readPage();
    const stranger = { ...kernels[0]!, name: 'fp8_linear_new_kernel<7>' };
    expect(check([...kernels, stranger])).toMatchObject({
      status: 1,
      problems: ['fp8_linear_new_kernel<7>: not in scripts/sass-kernels.mjs, or without resources'],
    });
  });

  it('fails when a kernel of the table is gone', () => {
    const rest = readPage().filter(({ name }) => !name.startsWith('fp8_linear_mma_kernel'));
    expect(check(rest)).toMatchObject({
      status: 1,
      problems: ['no kernel is called /^fp8_linear_mma_kernel/'],
    });
  });

  it('fails on a kernel with more registers than its block can have', () => {
    const name = blockKernel();
    expect(check(replace(name, (kernel) => ({ ...kernel, registers: 176 }))).problems).toEqual([
      `${name}: a block does not fit a multiprocessor`,
    ]);
  });

  it('says so where an old compiler made the library', () => {
    const name = blockKernel();
    const build = path.join(copy, 'custom-ops', 'build-cuda', 'sm_90a');
    const spilled = replace(name, (kernel) => ({ ...kernel, spilled: 8 }));
    writeFileSync(
      path.join(build, 'compiler.txt'),
      'nvcc\nCuda compilation tools, release 12.4, V12.4.131\n',
    );
    expect(check(spilled).problems[1]).toBe(
      'The library was compiled by CUDA 12.4: CUDA 12.8 and later make these instructions.',
    );
    writeFileSync(path.join(build, 'compiler.txt'), 'nvcc\nCuda compilation tools, release 12.8, V12.8.93\n');
    expect(check(spilled).problems).toHaveLength(1);
  });

  it('names what is missing', () => {
    rmSync(path.join(home, 'bin', 'cuobjdump'));
    expect(check([])).toMatchObject({
      status: 1,
      problems: [
        expect.stringMatching(/^Expected .*cuobjdump, which is part of the CUDA toolkit, but it is not/),
      ],
    });
    rmSync(path.join(copy, 'custom-ops', 'build-cuda', 'sm_90a', 'libfdq_cuda.so'));
    expect(check([]).problems).toEqual([expect.stringContaining('run npm run build:cuda first')]);
  });
});
