import { describe, expect, it } from 'vitest';
import { planReporters } from '../../../../src/bench/report/reporters.js';
import { UserError } from '../../../../src/errors.js';
import { qualityReport } from './sample-report.js';

const QUIET = { isJson: false, isActions: false };

function failure(texts: readonly string[], options = QUIET): UserError {
  try {
    planReporters(texts, options);
  } catch (error) {
    if (error instanceof UserError) return error;
  }
  throw new Error('accepted');
}

describe('reporters', () => {
  it('print a table unless another has stdout', async () => {
    const report = qualityReport();
    expect(await planReporters([], QUIET).stdout?.(report, 80)).toContain('Scenario');
    const withFile = planReporters(['junit:out.xml'], QUIET);
    expect(await withFile.stdout?.(report, 80)).toContain('Scenario');
    expect(withFile.files.map(({ file }) => file)).toEqual(['out.xml']);
    const csv = planReporters(['csv', 'markdown:a:b.md'], QUIET);
    expect(await csv.stdout?.(report, 80)).toMatch(/^kind,scenario/);
    expect(csv.files.map(({ file }) => file)).toEqual(['a:b.md']);
  });

  it('leave stdout to --json', () => {
    const plan = planReporters(['markdown:x.md'], { isJson: true, isActions: false });
    expect(plan.stdout).toBeNull();
    expect(plan.files).toHaveLength(1);
    const error = failure(['csv'], { isJson: true, isActions: false });
    expect(error.message).toBe('Expected --reporter csv to name a file, for --json prints to stdout.');
  });

  it('tell GitHub when asked to, and in Actions', () => {
    expect(planReporters([], QUIET).github).toBe(false);
    expect(planReporters(['github'], QUIET).github).toBe(true);
    expect(planReporters(['json'], { isJson: false, isActions: true }).github).toBe(true);
    expect(planReporters(['github', 'json'], { isJson: false, isActions: false }).stdout).not.toBeNull();
  });

  it('write one file for each direction of github-action-benchmark', async () => {
    const { files } = planReporters(['gha-benchmark:out/bench.json'], QUIET);
    expect(files.map(({ file }) => file)).toEqual(['out/bench.bigger.json', 'out/bench.smaller.json']);
    const [bigger, smaller] = await Promise.all(files.map(async ({ render }) => render(qualityReport(), 80)));
    expect(bigger).toContain('top1 (wint8)');
    expect(smaller).toContain('kl (wint8)');
  });

  it.each([
    [['jnit'], 'but received "jnit"', 'Did you mean junit?'],
    [['junit:'], 'Expected a file after --reporter junit:.', 'junit:FILE'],
    [['csv', 'json'], 'at most one --reporter on stdout but received csv and json', 'json:FILE'],
    [['github:x'], '--reporter github takes no file', 'markdown:x'],
    [['gha-benchmark'], 'gha-benchmark to name a file', 'bench.bigger.json'],
    [['csv:a', 'json:./a'], 'a file of its own', 'another file'],
    [['csv:b.bigger.json', 'gha-benchmark:b.json'], 'a file of its own', 'another file'],
  ])('refuse %j', (texts, message, suggestion) => {
    const error = failure(texts);
    expect(error.code).toBe('usage');
    expect(error.message).toContain(message);
    expect(error.suggestions.join(' ')).toContain(suggestion);
  });
});
