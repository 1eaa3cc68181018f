import { writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import type { NativeAddon } from '../../../src/runtime/addon.js';
import { chooseIsa, findOnnxRuntime, openRuntime } from '../../../src/runtime/load-addon.js';
import { createTempDir } from '../../helpers/temp-dir.js';

const root = path.join(import.meta.dirname, '..', '..', '..');
const addonPath = path.join(root, 'custom-ops', 'build', 'Release', 'fdq.node');

async function temporaryFile(name: string, text: string): Promise<string> {
  const file = path.join(await createTempDir(), name);
  writeFileSync(file, text);
  return file;
}

function failureOf(action: () => unknown): unknown {
  try {
    action();
  } catch (error) {
    return error;
  }
  return undefined;
}

/** Matches an `addon_unavailable` error with numbered fixes. */
function unavailable(message: RegExp): unknown {
  const suggestions = [expect.stringMatching(/^1\. /), expect.stringMatching(/^2\. /)];
  return expect.objectContaining({
    code: 'addon_unavailable',
    message: expect.stringMatching(message) as string,
    suggestions,
  });
}

// One runtime a process: what succeeds is in a file of its own, open-runtime.test.ts.
describe('openRuntime', () => {
  it('says how to build an addon that is missing or damaged', async () => {
    const damaged = await temporaryFile('fdq.node', 'not a library');
    expect(failureOf(() => openRuntime(`${damaged}.absent`))).toEqual(unavailable(/is not built: .*absent/));
    expect(failureOf(() => openRuntime(damaged))).toEqual(
      unavailable(/fdq\.node cannot be loaded on linux-\w+: .*(too short|invalid ELF)/),
    );
  });

  it('says what is wrong with the library', async () => {
    const damaged = await temporaryFile('libonnxruntime.so.1', 'not a library');
    const open = (library: string): unknown => failureOf(() => openRuntime(addonPath, library));
    expect(open(`${damaged}.absent`)).toEqual(unavailable(/1\.30 at .*absent.*cannot open/));
    expect(open(damaged)).toEqual(unavailable(/(too short|invalid ELF)/));
    expect(open('libm.so.6')).toEqual(
      unavailable(/libm\.so\.6 is not ONNX Runtime: it has no OrtGetApiBase/),
    );
  });

  it('refuses a version it was not proven with', async () => {
    const addon = await temporaryFile(
      'fdq.cjs',
      "exports.loadRuntime = () => ({ version: '1.31.0', buildInfo: '', providers: [] });",
    );
    expect(failureOf(() => openRuntime(addon, 'lib'))).toEqual(
      unavailable(/1\.30 at lib .*version 1\.31\.0/),
    );
  });

  it('says when the package is not installed', async () => {
    const elsewhere = createRequire(await temporaryFile('module.cjs', ''));
    expect(failureOf(() => findOnnxRuntime(elsewhere))).toEqual(
      unavailable(/onnxruntime-node is not installed/),
    );
  });
});

describe('chooseIsa', () => {
  const addon = { detectIsa: () => 'avx512' } as unknown as NativeAddon;

  it('takes the best, or an available one by name', () => {
    expect(chooseIsa(addon, undefined)).toBe('avx512');
    expect(chooseIsa(addon, '')).toBe('avx512');
    expect(chooseIsa(addon, 'avx2')).toBe('avx2');
  });

  it.each(['amx', 'AVX2', 'sse'])('refuses %s and lists what there is', (name) => {
    expect(failureOf(() => chooseIsa(addon, name))).toMatchObject({
      code: 'usage',
      param: 'FDQ_ISA',
      message: expect.stringContaining(name) as string,
      suggestions: ['Available here: scalar, avx2, avx512.'],
    });
  });
});
