// Finds the programs a native build needs, and names what is missing with the command that installs it.
import { accessSync, constants, statSync } from 'node:fs';
import path from 'node:path';
import process from 'node:process';

/** Package names by package manager; the first manager found on the machine is the one named. */
const MANAGERS = [
  { program: 'apt-get', install: 'sudo apt-get install -y', compiler: 'g++', cmake: 'cmake', make: 'make' },
  { program: 'dnf', install: 'sudo dnf install -y', compiler: 'gcc-c++', cmake: 'cmake', make: 'make' },
  { program: 'apk', install: 'sudo apk add', compiler: 'g++', cmake: 'cmake', make: 'make' },
  { program: 'pacman', install: 'sudo pacman -S', compiler: 'gcc', cmake: 'cmake', make: 'make' },
  { program: 'zypper', install: 'sudo zypper install -y', compiler: 'gcc-c++', cmake: 'cmake', make: 'make' },
  { program: 'brew', install: 'brew install', compiler: 'gcc', cmake: 'cmake', make: 'make' },
];

function isInstalled(program, searchPath) {
  if (program.includes(path.sep)) return isExecutable(program);
  return searchPath.split(path.delimiter).some((folder) => isExecutable(path.join(folder, program)));
}

function isExecutable(file) {
  try {
    accessSync(file, constants.X_OK);
    return statSync(file).isFile();
  } catch {
    return false;
  }
}

/**
 * Kinds of program that are missing: `compiler`, `cmake`, `make`.
 * CXX names a compiler of another name, as CMake understands it.
 */
export function missingTools(environment = process.env) {
  const searchPath = environment.PATH ?? '';
  const has = (...programs) => programs.some((program) => isInstalled(program, searchPath));
  const [ownCompiler] = (environment.CXX ?? '').split(' ').filter((word) => word !== '');
  const missing = [];
  if (!has(...(ownCompiler === undefined ? ['c++', 'g++', 'clang++'] : [ownCompiler])))
    missing.push('compiler');
  if (!has('cmake')) missing.push('cmake');
  if (!has('make', 'ninja')) missing.push('make');
  return missing;
}

const NAMES = { compiler: 'a C++17 compiler', cmake: 'CMake', make: 'make or ninja' };

/** What to tell the user, or undefined when nothing is missing. */
export function describeMissingTools(environment = process.env) {
  const missing = missingTools(environment);
  if (missing.length === 0) return undefined;
  const has = ({ program }) => isInstalled(program, environment.PATH ?? '');
  const managers = MANAGERS.some(has) ? MANAGERS.filter(has).slice(0, 1) : MANAGERS;
  return [
    `fdq's native addon needs ${missing.map((kind) => NAMES[kind]).join(' and ')}, not found on PATH. Install with:`,
    ...managers.map((manager) => `  ${manager.install} ${missing.map((kind) => manager[kind]).join(' ')}`),
  ].join('\n');
}

/** What CMake has to be told where there is no make, which it would take. */
export function generatorArgs(environment = process.env) {
  return isInstalled('make', environment.PATH ?? '') ? [] : ['-G', 'Ninja'];
}

/** @throws Error that names what is missing */
export function checkTools() {
  const problem = describeMissingTools();
  if (problem !== undefined) throw new Error(problem);
}
