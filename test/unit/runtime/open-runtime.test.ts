import path from 'node:path';
import { expect, it } from 'vitest';
import { openRuntime } from '../../../src/runtime/load-addon.js';
import { ROOT } from '../../helpers/cli.js';

it('opens the real library, the same path again, and no second one', () => {
  const addon = path.join(ROOT, 'custom-ops', 'build', 'Release', 'fdq.node');
  expect(openRuntime(addon).onnxruntime.version).toMatch(/^1\.30\./);
  expect(openRuntime(addon).onnxruntime.providers).toContain('CPUExecutionProvider');
  expect(() => openRuntime(addon, '/other')).toThrow(
    expect.objectContaining({
      code: 'addon_unavailable',
      message: expect.stringMatching(/already loaded from/) as string,
    }),
  );
});
