import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { readBaseline, saveBaseline } from '../../../../src/bench/gate/baseline-file.js';
import { reportOf } from '../../../helpers/bench-report.js';
import { createTempDir } from '../../../helpers/temp-dir.js';

describe('saveBaseline', () => {
  it('replaces an old file by what readBaseline reads, and leaves nothing else', async () => {
    const dir = await createTempDir();
    const file = path.join(dir, 'baseline.json');
    writeFileSync(file, 'old');
    const report = reportOf({ a: { decode: [1.5, 2.5] } });
    saveBaseline(report, file);
    expect(readBaseline(file, 'speed')).toMatchObject({ scenarios: report.scenarios });
    expect(readdirSync(dir)).toEqual(['baseline.json']);
  });

  it('keeps infinite figures', async () => {
    const file = path.join(await createTempDir(), 'baseline.json');
    const report = reportOf({ a: { kl: [1] } }, { kind: 'quality' });
    const [scenario] = report.scenarios;
    const metrics = [{ ...scenario!.metrics[0]!, value: Infinity, samples: [Infinity] }];
    saveBaseline({ ...report, scenarios: [{ ...scenario!, metrics }] }, file);
    expect(readFileSync(file, 'utf8')).toContain('"Infinity"');
    expect(readBaseline(file, 'quality').scenarios[0]?.metrics[0]?.value).toBe(Infinity);
  });

  it('names a file that cannot be written and leaves the folder as it was', async () => {
    const dir = await createTempDir();
    const file = path.join(dir, 'none', 'baseline.json');
    expect(() => saveBaseline(reportOf({}), file)).toThrow(
      expect.objectContaining({ code: 'write_failed', param: file }),
    );
    expect(readdirSync(dir)).toEqual([]);
  });
});
