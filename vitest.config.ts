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
const COMMON = { testTimeout: 60_000, hookTimeout: 60_000, pool: 'forks' } as const;

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
