import { open, readFile, stat } from 'node:fs/promises';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { saveBaseline } from '../../src/bench/gate/baseline-file.js';
import { evaluateGate } from '../../src/bench/gate/evaluate.js';
import { parseGate } from '../../src/bench/gate/options.js';
import { convertFolder } from '../helpers/convert-fixture.js';
import { measureQuality } from '../../src/bench/quality/measure-quality.js';
import {
  DEMO,
  DEMO_PROMPTS,
  DEMO_QUALITY,
  DEMO_TEXT,
  figure,
  measureDemo,
  reference,
} from '../helpers/demo-model.js';
import { createTempDir } from '../helpers/temp-dir.js';

const SAMPLE = { window: 256, stride: 256, maxWindows: 8 };
/** What 16 bits a stored logit may move a divergence by, nats. */
const STORED_BOUND = 2e-7;

interface Place {
  readonly name: string;
  readonly shape: readonly number[];
  readonly offset: number;
  readonly bytes: number;
}

/** Gives each group of a converted layer the scales of the group before it: [panels, groups, 16] float32. */
async function shiftScales(folder: string, layer: string): Promise<void> {
  const manifest = JSON.parse(await readFile(path.join(folder, 'fdq.json'), 'utf8')) as {
    readonly weights: { readonly tensors: readonly Place[] };
  };
  const place = manifest.weights.tensors.find(({ name }) => name === `${layer}.weight.scales`);
  if (place === undefined) throw new Error(`no scales of ${layer}`);
  const [panels = 0, groups = 0] = place.shape;
  const groupBytes = place.bytes / (panels * groups);
  const handle = await open(path.join(folder, 'weights.bin'), 'r+');
  const scales = Buffer.alloc(place.bytes);
  await handle.read(scales, 0, place.bytes, place.offset);
  const shifted = Buffer.alloc(place.bytes);
  for (let i = 0; i < panels * groups; i++) {
    const panel = Math.floor(i / groups);
    const target = panel * groups + ((i + 1) % groups);
    scales.copy(shifted, target * groupBytes, i * groupBytes, (i + 1) * groupBytes);
  }
  await handle.write(shifted, 0, place.bytes, place.offset);
  await handle.close();
}

describe('fdq bench quality on the demo model', () => {
  it('answers the prompts as the reference does', async () => {
    const { scenarios } = await measureDemo({ prompts: DEMO_PROMPTS, schemes: [{ quantization: 'wint4' }] });
    const { accuracy = NaN } = reference.schemes['wint4_channel'] ?? {};
    expect(figure(scenarios[0], 'accuracy')).toBeCloseTo(accuracy, 2);
    expect(scenarios[0]?.metrics.map(({ id }) => id)).toEqual(['weight_bytes', 'accuracy']);
  });

  it('finds scales that are off by one group, which perplexity and agreement do not', async () => {
    const folder = await createTempDir();
    const model = path.join(folder, 'out');
    await convertFolder(DEMO, folder, 'wint4:g128');
    const options = { model, reference: DEMO, windows: SAMPLE };
    const healthy = await measureDemo(options);
    const baseline = path.join(folder, 'baseline.json');
    saveBaseline(healthy, baseline);
    const gate = (...conditions: string[]): ReturnType<typeof parseGate> =>
      parseGate({ 'fail-if': conditions, baseline }, 'quality');
    // 6.3e-3 when healthy, 7.3e-3 when not.
    const strict = gate('kl > 0.0068', 'kl > +5%');
    expect(evaluateGate(healthy, strict)?.verdict).toBe('pass');
    await shiftScales(model, 'model.layers.0.mlp.down_proj');
    const faulty = await measureDemo(options);
    expect(evaluateGate(faulty, strict)?.checks.map(({ verdict }) => verdict)).toEqual(['fail', 'fail']);
    expect(evaluateGate(faulty, gate('perplexity > +1%', 'top1 < -1%'))?.verdict).toBe('pass');
  });

  it('diverges by the same from logits on disk', async () => {
    const referenceLogits = path.join(await createTempDir(), 'logits');
    const options = {
      schemes: [{ quantization: 'none' }, { quantization: 'wint8' }],
      windows: { ...SAMPLE, maxWindows: 4 },
    };
    const beside = await measureDemo(options);
    expect(figure(beside.scenarios[0], 'kl')).toBe(0);
    const first = await measureDemo({ ...options, referenceLogits });
    const { mtimeMs } = await stat(referenceLogits);
    const second = await measureDemo({ ...options, referenceLogits });
    expect((await stat(referenceLogits)).mtimeMs).toBe(mtimeMs);
    for (const [i, scenario] of beside.scenarios.entries()) {
      const kl = figure(first.scenarios[i], 'kl');
      expect(Math.abs(kl - figure(scenario, 'kl'))).toBeLessThan(STORED_BOUND);
      expect(figure(second.scenarios[i], 'kl')).toBe(kl);
      expect(figure(first.scenarios[i], 'perplexity')).toBe(figure(scenario, 'perplexity'));
      expect(figure(first.scenarios[i], 'top1')).toBe(figure(scenario, 'top1'));
    }
  });

  it('scores a token better the more of the text comes before it', async () => {
    const measure = (stride: number, maxWindows: number): ReturnType<typeof measureDemo> =>
      measureDemo({ reference: null, windows: { window: 64, stride, maxWindows } });
    // The first 512 tokens both times.
    const [apart] = (await measure(64, 8)).scenarios;
    const [overlapping] = (await measure(8, 57)).scenarios;
    expect(apart?.parameters['scored_tokens']).toBe(8 * 63);
    expect(overlapping?.parameters['scored_tokens']).toBe(63 + 56 * 8);
    expect(apart?.metrics.map(({ id }) => id)).toEqual(['weight_bytes', 'perplexity', 'nll']);
    expect(figure(overlapping, 'nll')).toBeLessThan(figure(apart, 'nll'));
  });

  it('measures layers once a scheme', async () => {
    const { scenarios } = await measureDemo({
      schemes: [{ quantization: 'none' }, { quantization: 'wint4' }],
      kvTypes: ['float32', 'int8'],
      layers: true,
      windows: { ...SAMPLE, maxWindows: 1 },
    });
    expect(scenarios.map(({ name }) => name)).toEqual([
      'none kv=float32 dtype=float32',
      'none kv=int8 dtype=float32',
      'wint4 kv=float32 dtype=float32',
      'wint4 kv=int8 dtype=float32',
    ]);
    expect(scenarios.map((scenario) => figure(scenario, 'layer_frobenius'))).toEqual([
      NaN,
      NaN,
      expect.closeTo(0.134, 2),
      expect.closeTo(0.134, 2),
    ]);
    expect(figure(scenarios[2], 'layer_sqnr_min')).toBeGreaterThan(10);
  });

  it('reports what was scored when it is interrupted', async () => {
    const controller = new AbortController();
    const report = await measureQuality(
      { ...DEMO_QUALITY, text: DEMO_TEXT, schemes: [{ quantization: 'wint8' }] },
      {
        stage: (name, state, message) => {
          if (name === 'score' && state === 'progress' && message?.startsWith('8 of') === true)
            controller.abort();
        },
      },
      controller.signal,
    );
    expect(report.partial).toBe(true);
    expect(report.scenarios[0]?.parameters).toMatchObject({ windows: 8, scored_tokens: 8 * 255 });
    expect(figure(report.scenarios[0], 'kl')).toBeGreaterThan(1e-6);
  });
});
