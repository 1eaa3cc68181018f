// Reads the machine code of libfdq_cuda.so: every kernel must have the instructions it was written for, no spilled
// registers, and products of a warpgroup that follow each other without waiting. Prints a table of registers, shared
// memory, occupancy (calculated for sm_90) and instructions. Where all targets were built (npm run build:cuda -- --all),
// their kernels must not spill either.
//   --json    the table as JSON
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import process from 'node:process';
import { fileURLToPath } from 'node:url';
import { findToolkit } from './cuda-toolkit.mjs';
import { KERNELS } from './sass-kernels.mjs';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');

/** Of a multiprocessor of sm_90, by the CUDA C++ programming guide. */
const SM_90 = {
  registers: 65_536,
  registersOfWarp: 256, // unit of allocation
  warps: 64,
  blocks: 32,
  sharedBytes: 228 * 1024,
  reservedBytesOfBlock: 1024,
};

/** The oldest release whose ptxas makes the instructions of the table. */
const TABLE_RELEASE = [12, 8];

function run(program, args, input) {
  const { status, error, stdout, stderr } = spawnSync(program, args, {
    encoding: 'utf8',
    input,
    maxBuffer: 1 << 30,
  });
  if (error?.code === 'ENOENT') {
    const from = program === 'c++filt' ? "your system's binutils" : 'the CUDA toolkit';
    throw new Error(`Expected ${program}, which is part of ${from}, but it is not there.`);
  }
  if (status !== 0) throw new Error(`${program} failed: ${error?.message ?? stderr}`);
  return stdout;
}

/** What to know of problems where an old compiler made the library; `build` has what CMake wrote beside it. */
function noteOldCompiler(build) {
  const file = path.join(build, 'compiler.txt');
  const text = existsSync(file) ? readFileSync(file, 'utf8') : '';
  const [release, major, minor] = /release (\d+)\.(\d+)/.exec(text) ?? [];
  if (release === undefined) return [];
  const isOld =
    Number(major) < TABLE_RELEASE[0] ||
    (Number(major) === TABLE_RELEASE[0] && Number(minor) < TABLE_RELEASE[1]);
  if (!isOld) return [];
  return [
    `The library was compiled by CUDA ${major}.${minor}: CUDA ${TABLE_RELEASE.join('.')} and later make these instructions.`,
  ];
}

/** Text of `cuobjdump -sass` → counts of instructions by kernel. */
export function countInstructions(text) {
  const kernels = new Map();
  let counts;
  for (const line of text.split('\n')) {
    const header = /Function : (\S+)/.exec(line);
    if (header !== null) {
      counts = new Map();
      kernels.set(header[1], counts);
      continue;
    }
    const instruction = /^\s*\/\*[0-9a-f]{4,}\*\/\s+(?:\{\s*)?(?:@!?U?P\w+\s+)?([A-Z][A-Za-z0-9_.]*)/.exec(
      line,
    );
    if (instruction !== null && counts !== undefined) {
      counts.set(instruction[1], (counts.get(instruction[1]) ?? 0) + 1);
    }
  }
  return kernels;
}

/**
 * Text of `cuobjdump -sass` → kernels in which ptxas ends a group after each product of a warpgroup. It does where it
 * cannot tell that registers of a product under way are left alone, and says so in no warning (C7514 is information).
 */
export function findSerialized(text) {
  const serialized = [];
  for (const part of text.split(/Function : /).slice(1)) {
    const products = part.match(/^\s*\/\*[0-9a-f]{4,}\*\/.*\b[HQI]GMMA\..*;/gm) ?? [];
    if (products.length > 1 && products.every((line) => line.includes('gsb0'))) {
      serialized.push(/^\S+/.exec(part)[0]);
    }
  }
  return serialized;
}

/** Text of `cuobjdump -res-usage` of a library of several targets → what spills, as { target, mangled, bytes }. */
export function findSpills(text) {
  const spills = [];
  for (const part of text.split(/^arch = /m).slice(1)) {
    const target = /^\S+/.exec(part)[0];
    for (const [mangled, { spillBytes }] of readResources(part)) {
      if (spillBytes > 0) spills.push({ target, mangled, bytes: spillBytes });
    }
  }
  return spills;
}

/**
 * Text of `cuobjdump -res-usage` → registers, stack and static shared memory by kernel. The first 1024 bytes of
 * shared memory are those that the system reserves in each block.
 */
export function readResources(text) {
  const kernels = new Map();
  const pattern = /Function (\S+):\s+REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)/g;
  for (const [, name, registers, stack, shared, local] of text.matchAll(pattern)) {
    kernels.set(name, {
      registers: Number(registers),
      spillBytes: Number(stack) + Number(local),
      sharedBytes: Math.max(0, Number(shared) - SM_90.reservedBytesOfBlock),
    });
  }
  return kernels;
}

/** Blocks and share of the warps of a multiprocessor. */
export function occupancy(registers, threads, sharedBytes, limits = SM_90) {
  const warps = Math.ceil(threads / 32);
  const registersOfWarp = Math.ceil((registers * 32) / limits.registersOfWarp) * limits.registersOfWarp;
  const byRegisters = Math.floor(Math.floor(limits.registers / registersOfWarp) / warps);
  const byShared = Math.floor(limits.sharedBytes / (sharedBytes + limits.reservedBytesOfBlock));
  const blocks = Math.min(byRegisters, byShared, Math.floor(limits.warps / warps), limits.blocks);
  return { blocks, percent: Math.round((100 * blocks * warps) / limits.warps) };
}

/** Template arguments stay, namespaces and parameters go. */
export function shortName(demangled) {
  return demangled
    .replace(/^void /, '')
    .replace(/\(anonymous namespace\)::/g, '')
    .replace(/fdq::cuda::/g, '')
    .replace(/\((?:fdq::)?(?:WeightFormat|ElementType|[A-Za-z:]+)\)(-?\d+)/g, '$1')
    .replace(/\([^()]*(?:\([^()]*\)[^()]*)*\)( \[clone.*)?$/, '');
}

/** Counts of the instructions whose names start with one of `wanted`. */
function countMatching(counts, wanted) {
  let sum = 0;
  for (const [name, count] of counts) if (name.startsWith(wanted)) sum += count;
  return sum;
}

/** One row a kernel, and what is wrong with it. */
export function judge(names, instructions, resources, table) {
  const problems = [];
  const rows = [];
  for (const [index, mangled] of [...instructions.keys()].entries()) {
    const name = names[index];
    const entry = table.find((candidate) => candidate.kernel.test(name));
    const { registers, spillBytes, sharedBytes } = resources.get(mangled) ?? {};
    if (entry === undefined || registers === undefined) {
      problems.push(`${name}: not in scripts/sass-kernels.mjs, or without resources`);
      continue;
    }
    const counts = instructions.get(mangled);
    const found = Object.fromEntries(entry.contains.map((wanted) => [wanted, countMatching(counts, wanted)]));
    for (const [wanted, count] of Object.entries(found)) {
      if (count === 0) problems.push(`${name}: no ${wanted} instruction`);
    }
    if (spillBytes > 0) problems.push(`${name}: ${spillBytes} bytes of spilled registers or local memory`);
    const shared = sharedBytes + (entry.sharedBytes ?? 0);
    const { blocks, percent } = occupancy(registers, entry.threads, shared);
    if (blocks === 0) problems.push(`${name}: a block does not fit a multiprocessor`);
    rows.push({
      name,
      registers,
      threads: entry.threads,
      sharedBytes: shared,
      blocks,
      percent,
      instructions: found,
    });
  }
  for (const { kernel } of table) {
    if (!names.some((name) => kernel.test(name))) problems.push(`no kernel is called ${kernel}`);
  }
  return { rows, problems };
}

function toMarkdown(rows) {
  const cells = rows.map((row) => [
    `\`${row.name}\``,
    row.registers,
    row.threads,
    row.sharedBytes,
    `${row.blocks} (${row.percent}%)`,
    Object.entries(row.instructions)
      .map(([name, count]) => `${name} ${count}`)
      .join(', '),
  ]);
  const header = ['Kernel', 'Registers', 'Threads', 'Shared bytes', 'Blocks (warps)', 'Instructions'];
  return [header, header.map(() => '---'), ...cells].map((line) => `| ${line.join(' | ')} |`).join('\n');
}

function demangle(mangled) {
  if (mangled.length === 0) return [];
  return run('c++filt', [], mangled.join('\n')).trim().split('\n').map(shortName);
}

/** What is wrong with the targets beside sm_90a, if they were built. */
function judgeOtherTargets(cuobjdump, library) {
  if (!existsSync(library)) return [];
  const spills = findSpills(run(cuobjdump, ['-res-usage', library]));
  const names = demangle(spills.map(({ mangled }) => mangled));
  return spills.map(
    ({ target, bytes }, i) => `${names[i]} of ${target}: ${bytes} bytes of spilled registers or local memory`,
  );
}

function main(args) {
  const unknown = args.find((arg) => arg !== '--json');
  if (unknown !== undefined) throw new Error(`Expected --json but received ${unknown}.`);
  const build = path.join(root, 'custom-ops', 'build-cuda', 'sm_90a');
  const library = path.join(build, 'libfdq_cuda.so');
  if (!existsSync(library)) {
    throw new Error(`Expected ${library} but it is not there: run npm run build:cuda first.`);
  }
  const { bin } = findToolkit();
  const cuobjdump = path.join(bin, 'cuobjdump');
  const sass = run(cuobjdump, ['-sass', library]);
  const instructions = countInstructions(sass);
  const resources = readResources(run(cuobjdump, ['-res-usage', library]));
  const { rows, problems } = judge(demangle([...instructions.keys()]), instructions, resources, KERNELS);
  for (const name of demangle(findSerialized(sass))) {
    problems.push(`${name}: ptxas makes its warpgroups wait for each product`);
  }
  problems.push(...judgeOtherTargets(cuobjdump, path.join(path.dirname(build), 'all', 'libfdq_cuda.so')));
  rows.sort((a, b) => a.name.localeCompare(b.name));
  console.log(args.includes('--json') ? JSON.stringify(rows, null, 2) : toMarkdown(rows));
  if (problems.length > 0) throw new Error([...problems, ...noteOldCompiler(build)].join('\n'));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  try {
    main(process.argv.slice(2));
  } catch (error) {
    console.error(error.message);
    process.exitCode = 1;
  }
}
