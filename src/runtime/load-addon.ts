import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import process from 'node:process';
import { fileURLToPath } from 'node:url';
import { UserError } from '../errors.js';
import type { IsaName, NativeAddon, RuntimeInfo } from './addon.js';

const require = createRequire(import.meta.url);

/** ONNX Runtime versions the addon was proven with. */
const PROVEN_VERSIONS = '1.30.';

export interface Runtime {
  readonly addon: NativeAddon;
  readonly onnxruntime: RuntimeInfo;
}

let loaded: Runtime | undefined;

/**
 * Loads the addon and, through it, the ONNX Runtime library inside `onnxruntime-node`.
 * @throws UserError `addon_unavailable` with numbered fixes when either cannot be loaded.
 */
export function loadRuntime(): Runtime {
  loaded ??= openRuntime(path.join(customOpsFolder(), 'build', 'Release', 'fdq.node'));
  return loaded;
}

/** Folder of the empty file that stands for weights handed over in memory. */
export function placeholderFolder(): string {
  return path.join(customOpsFolder(), 'ort', 'placeholder');
}

function customOpsFolder(): string {
  return path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..', '..', 'custom-ops');
}

/** Exported for tests of the failure messages. */
export function openRuntime(addonPath: string, library?: string): Runtime {
  const addon = openAddon(addonPath);
  const libraryPath = library ?? findOnnxRuntime();
  try {
    const onnxruntime = addon.loadRuntime(libraryPath);
    if (!onnxruntime.version.startsWith(PROVEN_VERSIONS)) {
      throw new Error(`it is version ${onnxruntime.version}`);
    }
    return { addon, onnxruntime };
  } catch (cause) {
    throw new UserError(
      'addon_unavailable',
      `Expected ONNX Runtime 1.30 at ${libraryPath} but could not use it: ${reason(cause)}.`,
      { cause, suggestions: installSuggestions() },
    );
  }
}

function installSuggestions(): readonly string[] {
  return [
    '1. Install the version fdq was proven with: npm install onnxruntime-node@1.30.0 --ignore-scripts',
    '2. On a Linux older than glibc 2.28, use a newer distribution or container.',
  ];
}

function openAddon(addonPath: string): NativeAddon {
  if (!existsSync(addonPath)) {
    throw new UserError(
      'addon_unavailable',
      `fdq's native addon is not built: ${addonPath} does not exist.`,
      {
        suggestions: buildSuggestions(),
      },
    );
  }
  try {
    return require(addonPath) as NativeAddon;
  } catch (cause) {
    throw new UserError(
      'addon_unavailable',
      `fdq's native addon ${addonPath} cannot be loaded on ${process.platform}-${process.arch}: ${reason(cause)}.`,
      { cause, suggestions: buildSuggestions() },
    );
  }
}

function buildSuggestions(): readonly string[] {
  const root = path.resolve(customOpsFolder(), '..');
  return [
    '1. Install a C++17 compiler and CMake, e.g. apt-get install g++ cmake make',
    `2. Build it: node ${path.join(root, 'scripts', 'build.mjs')} --addon-only`,
  ];
}

/** Exported for tests: `from` is the module that looks for the package. */
export function findOnnxRuntime(from: NodeJS.Require = require): string {
  let root: string;
  try {
    root = path.dirname(from.resolve('onnxruntime-node/package.json'));
  } catch (cause) {
    throw new UserError('addon_unavailable', 'The package onnxruntime-node is not installed.', {
      cause,
      suggestions: installSuggestions(),
    });
  }
  return path.join(root, 'bin', 'napi-v6', process.platform, process.arch, 'libonnxruntime.so.1');
}

function reason(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).replace(/\.$/, '');
}

/**
 * The instruction set kernels use: the best of this machine, or the one `forced` (FDQ_ISA) names.
 * @throws UserError `usage` when the machine does not have it.
 */
export function chooseIsa(addon: NativeAddon, forced: string | undefined): IsaName {
  const best = addon.detectIsa();
  if (forced === undefined || forced === '') return best;
  const known: readonly IsaName[] = ['scalar', 'avx2', 'avx512', 'avx512_bf16', 'amx'];
  const available = known.slice(0, known.indexOf(best) + 1);
  const found = available.find((name) => name === forced);
  if (found !== undefined) return found;
  throw new UserError(
    'usage',
    `Expected FDQ_ISA to be an instruction set this machine has but received ${forced}.`,
    {
      param: 'FDQ_ISA',
      suggestions: [`Available here: ${available.join(', ')}.`],
    },
  );
}
