import { defineConfig } from 'vitest/config';

/** Tests that measure time: one after the other, when all others are done. */
const TIMED = [
  'test/contract/gate-*.test.ts',
  'test/e2e/bench-*.test.ts',
  'test/e2e/load.test.ts',
  'test/fuzz/onnx-convert.test.ts',
  'test/native/session.test.ts',
  'test/unit/engine/overhead.test.ts',
];
/** For what never ends: a machine that is twenty times slower must not fail a test. */
const TIMEOUT_MS = 600_000;
const COMMON = {
  testTimeout: TIMEOUT_MS,
  hookTimeout: TIMEOUT_MS,
  pool: 'forks',
  globalSetup: 'test/helpers/temp-root.ts',
} as const;

export default defineConfig({
  test: {
    projects: [
      {
        test: {
          ...COMMON,
          name: 'together',
          include: ['test/{unit,contract,golden,e2e,fuzz,native}/**/*.test.ts'],
          exclude: TIMED,
          maxWorkers: '100%',
          sequence: { groupOrder: 0 },
        },
      },
      {
        test: { ...COMMON, name: 'alone', include: TIMED, maxWorkers: 1, sequence: { groupOrder: 1 } },
      },
    ],
  },
});
