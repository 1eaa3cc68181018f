import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';

/** Writes a program for /bin/sh; `body` may be several lines. */
export function writeProgram(file: string, body: string): string {
  mkdirSync(path.dirname(file), { recursive: true });
  writeFileSync(file, `#!/bin/sh\n${body}\n`);
  chmodSync(file, 0o755);
  return file;
}

/**
 * A CUDA toolkit of programs that do nothing but what its build looks at: `nvcc` tells a version, writes the file
 * after -o, and the dependencies after -MF. `compile` runs first where it compiles.
 * @returns the folder that CUDA_HOME would name
 */
export function writeToolkit(folder: string, release: string, compile = ''): string {
  const body = `
if [ "$1" = --version ]; then echo "Cuda compilation tools, release ${release}, V${release}.1"; exit 0; fi
echo "$@" >> "${folder}/calls"
${compile}
while [ $# -gt 0 ]; do
  case "$1" in
    -o) out=$2; shift ;;
    -MF) echo "$out:" > "$2"; shift ;;
    -MT) out=$2; shift ;;
  esac
  shift
done
echo made > "$out"`;
  writeProgram(path.join(folder, 'bin', 'nvcc'), body);
  return folder;
}
