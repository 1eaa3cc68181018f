import { readFileSync } from 'node:fs';
import path from 'node:path';
import { measureQuality } from '../../src/bench/quality/measure-quality.js';
import type { QualityOptions } from '../../src/bench/quality/options.js';
import type { BenchReport, Scenario } from '../../src/bench/report.js';

/** The demo model, its evaluation text and the reference's figures. */
export const DEMO = path.join(import.meta.dirname, '..', '..', 'models', 'demo');
export const DEMO_TEXT = path.join(DEMO, 'eval.txt');
export const DEMO_PROMPTS = path.join(DEMO, 'eval.jsonl');

export interface DemoReference {
  readonly schemes: Readonly<
    Record<
      string,
      {
        readonly perplexity: number;
        readonly kl_nats: number;
        readonly top1_agreement: number;
        readonly accuracy: number;
      }
    >
  >;
  readonly probes: readonly {
    readonly prompt: string;
    readonly input_ids: number[];
    readonly greedy_ids: number[];
  }[];
  readonly perplexity_definition: { readonly windows: number; readonly scored_tokens: number };
}

export const reference = JSON.parse(readFileSync(path.join(DEMO, 'reference.json'), 'utf8')) as DemoReference;

/** As the reference defines them: windows of 256 tokens that do not overlap, float32 throughout. */
export const DEMO_QUALITY: QualityOptions = {
  model: DEMO,
  locate: { offline: true },
  schemes: [{}],
  kvTypes: ['auto'],
  dtype: 'float32',
  threads: 2,
  utilization: 0.9,
  windows: { window: 256, stride: 256 },
  maxTokens: 96,
  maxNumSeqs: 48,
  layers: false,
  maxReferenceBytes: 1024 ** 3,
};

/** Measures the demo model, by default on its text alone. */
export function measureDemo(options: Partial<QualityOptions>, signal?: AbortSignal): Promise<BenchReport> {
  const inputs = options.prompts === undefined ? { text: DEMO_TEXT } : {};
  return measureQuality({ ...DEMO_QUALITY, ...inputs, ...options }, { stage: () => undefined }, signal);
}

/** A figure of a scenario; NaN where it was not measured. */
export function figure(scenario: Scenario | undefined, id: string): number {
  return scenario?.metrics.find((metric) => metric.id === id)?.value ?? NaN;
}
