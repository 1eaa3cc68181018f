import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { openReport } from '../../../src/inspect/open-report.js';
import { createTempDir } from '../../helpers/temp-dir.js';

describe('openReport', () => {
  it('tells a file that cannot be read from one that is no report', async () => {
    const file = path.join(await createTempDir(), 'report.json');
    await expect(openReport(file)).rejects.toThrow(
      expect.objectContaining({ code: 'report_not_found', exitCode: 3, param: file }),
    );
    writeFileSync(file, '{"schema": "other", "layers": []}');
    await expect(openReport(file)).rejects.toThrow(
      expect.objectContaining({ code: 'invalid_config', exitCode: 2, param: file }),
    );
  });
});
