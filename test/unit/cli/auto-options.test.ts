import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { withAuto } from '../../../src/cli/auto-options.js';
import { createTempDir } from '../../helpers/temp-dir.js';

describe('withAuto', () => {
  const limits = { 'max-weight-bytes': 5, 'max-error': undefined };

  it('refuses a file that cannot be written before anything is measured', async () => {
    const dir = await createTempDir();
    const save = (file: string) =>
      withAuto({ quantization: 'auto' }, { ...limits, 'save-quantization-config': path.join(dir, file) });
    expect(save('plan.json').auto).toEqual({ maxWeightBytes: 5, saveConfig: path.join(dir, 'plan.json') });
    expect(() => save('none/plan.json')).toThrow(
      expect.objectContaining({ code: 'usage', param: '--save-quantization-config' }),
    );
  });
});
