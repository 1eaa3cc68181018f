import { describe, expect, it } from 'vitest';
import { renderAnnotations, renderOutputs, renderStepSummary } from '../../../../src/bench/report/github.js';
import type { BenchReport, GateCheck } from '../../../../src/bench/report.js';
import {
  HOSTILE,
  sampleCheck,
  sampleMetric,
  sampleReport,
  sampleScenario,
  speedReport,
} from './sample-report.js';

const MIB = 1024 * 1024;

function judged(checks: readonly GateCheck[], extra: Partial<BenchReport> = {}): BenchReport {
  const verdict = checks.some((check) => check.verdict === 'fail') ? 'fail' : 'inconclusive';
  return { ...speedReport(), gate: { verdict, checks, baseline: null }, ...extra };
}

/** As the runner reads them. */
function unescape(text: string): string {
  return text
    .replaceAll('%0D', '\r')
    .replaceAll('%0A', '\n')
    .replaceAll('%3A', ':')
    .replaceAll('%2C', ',')
    .replaceAll('%25', '%');
}

describe('annotations', () => {
  it('are one for each figure: errors, then warnings', () => {
    const lines = renderAnnotations(
      judged([
        sampleCheck(),
        sampleCheck({ condition: 'decode < 30', reason: 'It is 28.' }),
        sampleCheck({ scenario: 'none', verdict: 'inconclusive', reason: 'Noisy.' }),
        sampleCheck({ metric: 'kl', verdict: 'pass' }),
      ]),
    );
    expect(lines).toEqual([
      '::error title=decode of wint4 t=2::decode < -5%25: The whole interval is below -5 %25.%0Adecode < 30: It is 28.',
      '::warning title=decode of none::decode < -5%25: Noisy.',
    ]);
  });

  it('keep what they are told on one line and in its place', () => {
    const [line = ''] = renderAnnotations(
      judged([sampleCheck({ scenario: `a,b:c${HOSTILE}`, condition: HOSTILE, reason: HOSTILE })]),
    );
    expect(line).not.toMatch(/[\p{Cc}\p{Cf}]/u);
    const [, title = '', message = ''] = /^::error title=([^:,]*)::(.*)$/.exec(line) ?? [];
    expect(unescape(title)).toContain('decode of a,b:c=1+1,"</script>');
    expect(unescape(message)).toContain('%0A::error::');
  });

  it('are no more than GitHub shows, and say so', () => {
    const checks = Array.from({ length: 25 }, (_, index) => sampleCheck({ scenario: `s${index}` }));
    const lines = renderAnnotations(judged(checks));
    expect(lines).toHaveLength(10);
    expect(lines.at(-1)).toContain('16 more figures failed');
    expect(renderAnnotations(judged(checks.slice(0, 10))).at(-1)).toContain('s9');
  });

  it('warn about a run that ended early, and say nothing of a good one', () => {
    expect(renderAnnotations(speedReport())).toEqual([]);
    expect(renderAnnotations(sampleReport([], { partial: true }))).toEqual([
      '::warning title=fdq bench%3A Speed::The run ended early: not everything was measured.',
    ]);
  });
});

describe('the summary of a step', () => {
  it('is the Markdown report', () => {
    expect(renderStepSummary(speedReport(), 0)).toMatch(
      /^## fdq bench: Speed\n\n\| Scenario \|[^]*<\/details>\n\n$/,
    );
  });

  it('leaves out what does not fit beside what the step has written before', () => {
    const scenarios = Array.from({ length: 9000 }, (_, index) =>
      sampleScenario(`scenario ${index}`, [sampleMetric('decode', 1, 2), sampleMetric('prefill', 3, 4)]),
    );
    const many = sampleReport(scenarios, {
      gate: { verdict: 'fail', checks: [sampleCheck()], baseline: null },
    });
    const roomy = renderStepSummary(many, 0);
    expect(roomy).toContain('scenario 8999');
    const used = MIB - 100_000;
    const tight = renderStepSummary(many, used);
    expect(Buffer.byteLength(tight) + used).toBeLessThanOrEqual(MIB);
    expect(tight).toContain('❌ fail');
    expect(tight).toContain('The rest is left out');
    expect(tight).not.toContain('scenario 8999');
    expect(renderStepSummary(many, MIB)).toBe('');
  });
});

describe('outputs', () => {
  const parse = (text: string): Record<string, string> =>
    Object.fromEntries(
      text
        .trimEnd()
        .split('\n')
        .map((line) => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)]),
    );

  it('hold verdict, speed and every figure, a line each', () => {
    const outputs = parse(renderOutputs(judged([sampleCheck()])));
    expect(outputs).toMatchObject({ verdict: 'fail', summary: '1 of 1 checks failed' });
    expect(Number(outputs['tok_per_s'])).toBeCloseTo(9.03);
    const metrics = JSON.parse(outputs['metrics'] ?? '') as Record<string, Record<string, number>>;
    expect(metrics['wint4 kv=auto t=2 d=0 b=8']?.['weight_bytes']).toBe(0.33e9);
  });

  it('stay on their line whatever the names are', () => {
    const text = renderOutputs(sampleReport([sampleScenario(HOSTILE, [sampleMetric(HOSTILE, 1)])]));
    expect(text.split('\n')).toHaveLength(4);
    expect(parse(text)['verdict']).toBe('none');
    expect(JSON.parse(parse(text)['metrics'] ?? '')).toEqual({ [HOSTILE]: { [HOSTILE]: 1 } });
  });

  it('take the speed of a server where nothing else was measured, and leave out what is too large', () => {
    const served = sampleReport([sampleScenario('a', [sampleMetric('output_throughput', 50)])]);
    expect(parse(renderOutputs(served))['tok_per_s']).toBe('50');
    const names = Array.from({ length: 5000 }, (_, index) => `scenario with a rather long name ${index}`);
    const large = sampleReport(names.map((name) => sampleScenario(name, [sampleMetric('decode', 1)])));
    expect(Object.keys(parse(renderOutputs(large)))).toEqual(['verdict', 'summary', 'tok_per_s']);
  });
});
