import { loadRuntime, placeholderFolder, type Runtime } from '../../src/runtime/load-addon.js';
import type { IsaName, NativeSession, SessionOptions } from '../../src/runtime/addon.js';

/** ONNX TensorProto.DataType numbers. */
export const ElementType = {
  float32: 1,
  uint8: 2,
  int8: 3,
  int32: 6,
  int64: 7,
  float16: 10,
  bfloat16: 16,
  float8e4m3fn: 17,
  int4: 22,
} as const;

export function openAddon(): Runtime {
  return loadRuntime();
}

const ISAS: readonly IsaName[] = ['scalar', 'avx2', 'avx512', 'avx512_bf16', 'amx'];

/** Every instruction set this machine has. */
export function availableIsas(): readonly IsaName[] {
  return ISAS.slice(0, ISAS.indexOf(openAddon().addon.detectIsa()) + 1);
}

export function createSession(runtime: Runtime, options: Partial<SessionOptions>): Promise<NativeSession> {
  return runtime.addon.createSession({
    model: new Uint8Array(),
    initializers: [],
    placeholderFolder: placeholderFolder(),
    threads: 2,
    spinning: false,
    isa: runtime.addon.detectIsa(),
    ...options,
  });
}
