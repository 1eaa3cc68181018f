// Compares every ONNX Runtime function slot and struct offset the addon uses with the official C header, which is
// fetched as a Go module (the only registry that carries it). Skipped, by name, without Go or a network.
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { fileURLToPath } from 'node:url';

const HEADER_MODULE = 'github.com/yalue/onnxruntime_go@v1.27.0';
const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');

if (spawnSync('go', ['version']).status !== 0) {
  console.log('check:abi skipped: Go is not installed');
  process.exit(0);
}
const work = mkdtempSync(path.join(tmpdir(), 'fdq-abi-'));
try {
  writeFileSync(path.join(work, 'go.mod'), 'module abi\ngo 1.22\n');
  const answer = execFileSync('go', ['mod', 'download', '-json', HEADER_MODULE], {
    cwd: work,
    encoding: 'utf8',
  });
  const header = JSON.parse(answer).Dir;
  execFileSync(
    process.env.CXX ?? 'c++',
    ['-std=c++17', '-fsyntax-only', '-isystem', header, '-I', 'custom-ops', 'custom-ops/abi/check_abi.cc'],
    { cwd: root, stdio: 'inherit' },
  );
} finally {
  rmSync(work, { recursive: true });
}
