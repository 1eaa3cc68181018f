import path from 'node:path';
import { describeEnvironment } from '../environment.js';
import { BENCH_SCHEMA, type BenchReport, type Scenario } from '../report.js';
import { toMetric } from '../summarize.js';
import type { QualityObserver, QualityOptions } from './options.js';
import type { PlannedScenario } from './plan-models.js';
import { closeText, prepare, type Prepared } from './prepare.js';
import { QualityRun, type Outcome } from './quality-run.js';

/**
 * Measures every scheme over every type of KV cache on the same text and prompts. What can be wrong with flags, files
 * and headers is found before a weight is read.
 * @param signal ends the run at the next step; what was measured by then is reported
 * @throws UserError `usage`, `out_of_memory`, and what locating, planning and loading models throw
 */
export async function measureQuality(
  options: QualityOptions,
  observer: QualityObserver,
  signal: AbortSignal = new AbortController().signal,
): Promise<BenchReport> {
  observer.stage('plan', 'start');
  const prepared = await prepare(options, signal);
  const run = new QualityRun(prepared, observer, signal);
  try {
    const { text, prompts } = prepared.inputs;
    observer.planned?.(
      prepared.scenarios.map(({ name }) => name),
      { text: text !== undefined, prompts: prompts.length > 0 },
    );
    observer.stage('plan', 'done');
    await run.measure();
  } catch (error) {
    // Loading and measuring layers answer an interruption by throwing.
    if (!signal.aborted) throw error;
  } finally {
    await closeText(prepared.text);
  }
  const { isa, runtime } = prepared.scenarios[0]?.plan ?? {};
  return {
    schema: BENCH_SCHEMA,
    kind: 'quality',
    environment: await describeEnvironment({
      isa: isa ?? null,
      onnxruntime: runtime?.onnxruntime.version ?? null,
    }),
    scenarios: [...run.outcomes].map(([scenario, outcome]) => toScenario(prepared, scenario, outcome)),
    warnings: prepared.warnings,
    partial: signal.aborted,
    gate: null,
  };
}

function toScenario(
  { options, inputs, digest, reference }: Prepared,
  { name, label, plan }: PlannedScenario,
  { metrics, windows, tokens }: Outcome,
): Scenario {
  return {
    name,
    parameters: {
      model: options.model,
      checkpoint: digest,
      scheme: label,
      kv_cache_dtype: plan.arithmetic.kv,
      dtype: plan.arithmetic.compute,
      reference: reference?.located.reference ?? null,
      text: inputs.text === undefined ? null : path.basename(inputs.text.path),
      window: options.windows.window,
      stride: options.windows.stride,
      windows,
      scored_tokens: tokens,
      prompts: inputs.prompts.length,
      max_tokens: options.maxTokens,
    },
    metrics: [toMetric('weight_bytes', [plan.weightBytes]), ...metrics],
  };
}
