import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { chooseSchemes } from '../../../src/choose-schemes.js';
import type { AutoOptions } from '../../../src/cli/auto-options.js';
import type { ConvertReport } from '../../../src/convert/convert.js';
import type { UserError } from '../../../src/errors.js';
import { intAttribute, stringAttribute } from '../../../src/graph/builder.js';
import { byteLengthOf } from '../../../src/graph/data-types.js';
import type { Attribute, Graph, GraphNode, Initializer } from '../../../src/graph/ir.js';
import { parseModel } from '../../../src/graph/onnx.js';
import { inspectModel, type Inspection, type InspectOptions } from '../../../src/inspect/inspect.js';
import { convertFolder } from '../../helpers/convert-fixture.js';
import { fixtureOptions } from '../../helpers/fixture-model.js';
import { fillValues, writeOnnx } from '../../helpers/onnx-model.js';
import { createTempDir } from '../../helpers/temp-dir.js';

const [K, H, EXPERTS, INNER] = [64, 96, 3, 32];

let dir: string;
let file: string;
let config: string;
beforeEach(async () => {
  dir = await createTempDir();
  mkdirSync(path.join(dir, 'in'));
  file = path.join(dir, 'in', 'model.onnx');
  config = path.join(dir, 'plan.json');
});

/** Values of which few are large: the more of them, the worse a scale for many columns. */
function weights(count: number, seed: number, outliers = 0): Float32Array {
  return fillValues(count, seed).map((value, at) =>
    outliers > 0 && at % Math.floor(count / outliers) === 0 ? 40 * value : value,
  );
}

function node(
  opType: string,
  inputs: readonly string[],
  output: string,
  more: Partial<GraphNode> = {},
): GraphNode {
  return {
    name: `/${output}/${opType}`,
    opType,
    domain: '',
    inputs,
    outputs: [output],
    attributes: {},
    ...more,
  };
}

const transB: Record<string, Attribute> = { transB: intAttribute(1) };

/**
 * ids [t] pick rows x of `table` [H, K], which is multiplied with too: x' = MoE(x), y = (x' easy) odd[0]^T table^T.
 * `easy` [K, H] lies in a file of its own, everything else in the model. `bias` is the name of a layer elsewhere.
 */
function buildModel(): Graph {
  const external = path.join(dir, 'in', 'easy.bin');
  const easy = weights(K * H, 1);
  writeFileSync(external, easy);
  const inline = (name: string, shape: readonly number[], data: Float32Array): Initializer => {
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    return { name, dataType: 'float32', shape, data: { kind: 'inline', bytes } };
  };
  const initializers: Initializer[] = [
    {
      name: 'easy',
      dataType: 'float32',
      shape: [K, H],
      data: { kind: 'external', file: external, offset: 0, byteLength: easy.byteLength },
    },
    inline('odd[0]', [K, H], weights(K * H, 2, 40)),
    inline('table', [H, K], weights(H * K, 3, 5)),
    inline('fc1', [EXPERTS, INNER, K], weights(EXPERTS * INNER * K, 4, 9)),
    inline('fc2', [EXPERTS, K, INNER], weights(EXPERTS * K * INNER, 5)),
    inline('b1', [EXPERTS, INNER], fillValues(EXPERTS * INNER, 6)),
  ];
  return {
    name: 'model',
    opsets: new Map([
      ['', 21],
      ['com.microsoft', 1],
    ]),
    inputs: [
      { name: 'ids', dataType: 'int64', shape: ['t'] },
      { name: 'routes', dataType: 'float32', shape: ['t', EXPERTS] },
    ],
    outputs: [{ name: 'y', dataType: 'float32', shape: ['t', H] }],
    nodes: [
      node('Gather', ['table', 'ids'], 'x'),
      node('MoE', ['x', 'routes', 'fc1', 'b1', 'fc2'], 'mixed', {
        domain: 'com.microsoft',
        attributes: { k: intAttribute(2), activation_type: stringAttribute('silu') },
      }),
      // The place of this node is called as the matrix of the last one.
      node('MatMul', ['mixed', 'easy'], 'wide', { name: '/table/MatMul' }),
      node('Gemm', ['wide', 'odd[0]'], 'narrow', { attributes: transB }),
      node('Gemm', ['narrow', 'table'], 'y', { attributes: transB }),
    ],
    initializers: new Map(initializers.map((each) => [each.name, each])),
    values: new Map(),
    metadata: new Map(),
  };
}

const LAYERS = ['easy', 'fc1', 'fc2', 'odd[0]', 'table'];

function convertAuto(limits: AutoOptions, info: string[] = []): Promise<ConvertReport> {
  const { signal } = new AbortController();
  const chooseQuantization = chooseSchemes({
    auto: { saveConfig: config, ...limits },
    flags: {},
    threads: 2,
    signal,
    onProgress: () => undefined,
    info: (line) => info.push(line),
  });
  const load = { ...fixtureOptions(file), chooseQuantization };
  return convertFolder(file, dir, undefined, { format: 'onnx', load, verify: true, force: true });
}

function inspect(changes: Partial<InspectOptions>): Promise<Inspection> {
  return inspectModel({
    model: file,
    quantization: {},
    dtype: 'auto',
    memory: { threads: 2, utilization: 0.9 },
    measure: false,
    ...changes,
  });
}

function bytesOf(folder: string): number {
  const { initializers } = parseModel(readFileSync(path.join(folder, 'model.onnx')), { dir: folder });
  return [...initializers.values()].reduce(
    (sum, { dataType, shape }) => sum + byteLengthOf(dataType, shape),
    0,
  );
}

const readConfig = () => JSON.parse(readFileSync(config, 'utf8')) as { targets: Record<string, string> };
const names = ({ report }: Inspection) => report.layers.map(({ name }) => name).sort();

describe('--quantization auto for an ONNX model', () => {
  it('keeps to a budget of bytes, in schemes and pairs of experts that can be written', async () => {
    writeOnnx(file, buildModel());
    const full = bytesOf(path.dirname(file));
    const used = new Set<string>();
    for (const share of [0.34, 0.45, 0.6, 0.9]) {
      const maxWeightBytes = Math.floor(full * share);
      const report = await convertAuto({ maxWeightBytes });
      expect(report.weightBytes).toBe(bytesOf(report.output));
      expect(report.weightBytes).toBeLessThanOrEqual(maxWeightBytes);
      expect(report.verified).toMatch(/1 output has a cosine/);
      const { targets } = readConfig();
      expect(Object.keys(targets)).toHaveLength(LAYERS.length);
      expect(targets['fc1']).toBe(targets['fc2']);
      for (const scheme of Object.values(targets)) used.add(scheme);
    }
    expect(used.size).toBeGreaterThan(2);
    expect([...used].filter((scheme) => !/^(?:none|wint[48])/.test(scheme))).toEqual([]);
  });

  it('saves a config that writes the same model', async () => {
    writeOnnx(file, buildModel());
    const info: string[] = [];
    const { output } = await convertAuto({ maxWeightBytes: 90_000 }, info);
    expect(info[0]).toMatch(/^Chosen by measured error: .* of weights\.$/);
    const chosen = ['model.onnx', 'model.onnx.data'].map((name) => readFileSync(path.join(output, name)));
    const again = await convertFolder(file, dir, undefined, {
      format: 'onnx',
      load: { ...fixtureOptions(file), quantizationConfig: readConfig() },
      output: path.join(dir, 'again'),
    });
    expect(
      ['model.onnx', 'model.onnx.data'].map((name) => readFileSync(path.join(again.output, name))),
    ).toEqual(chosen);
  });

  it('takes the fewest bytes within a bound of the error', async () => {
    writeOnnx(file, buildModel());
    const loose = await convertAuto({ maxError: 0.1 });
    const { report } = await inspect({ quantization: { quantizationConfig: readConfig() }, measure: true });
    const errors = report.layers.flatMap(({ error }) => (error === null ? [] : [error.frobenius]));
    expect(errors.length).toBeGreaterThan(1);
    expect(Math.max(...errors)).toBeLessThanOrEqual(0.1);
    const strict = await convertAuto({ maxError: 0.01 });
    expect(strict.weightBytes).toBeGreaterThan(loose.weightBytes);
  });

  it('says which size is the smallest, and takes it', async () => {
    writeOnnx(file, buildModel());
    const error = await convertAuto({ maxWeightBytes: 1000 }).catch((cause: unknown) => cause as Error);
    expect(error).toMatchObject({ code: 'out_of_memory', param: 'max-weight-bytes' });
    // The model has no embeddings, and the format holds none that are quantized.
    expect((error as UserError).suggestions.join()).not.toContain('--quantize');
    const smallest = await convertAuto({ maxError: 1 });
    await expect(convertAuto({ maxWeightBytes: smallest.weightBytes - 1 })).rejects.toMatchObject({
      code: 'out_of_memory',
    });
    expect((await convertAuto({ maxWeightBytes: smallest.weightBytes })).weightBytes).toBe(
      smallest.weightBytes,
    );
  });

  it('is refused beside schemes for some layers', async () => {
    writeOnnx(file, buildModel());
    const auto = inspect({
      auto: { maxError: 0.1 },
      quantization: { quantizationConfig: { targets: { fc1: 'wint4' } } },
    });
    await expect(auto).rejects.toMatchObject({ code: 'usage', param: 'quantization-config' });
  });
});

describe('fdq inspect MODEL.onnx with flags', () => {
  it('shows what convert would write, and chooses as it does', async () => {
    writeOnnx(file, buildModel());
    const limits = { maxWeightBytes: 90_000 };
    const converted = await convertAuto(limits);
    const inspection = await inspect({ auto: limits });
    expect(inspection.auto?.config).toEqual(readConfig());
    const { report } = inspection;
    expect(report.totals.bytesAfter).toBe(converted.weightBytes);
    // The table of rows is the Gather's own matrix too.
    expect(names(inspection)).toEqual([...LAYERS, 'table'].sort());
    expect(report.layers.filter(({ scheme }) => scheme !== 'none').every(({ error }) => error !== null)).toBe(
      true,
    );
    expect(report.totals.error?.frobenius).toBeGreaterThan(0);
    const { targets } = readConfig();
    const shown = report.layers.find(({ name }) => name === 'fc1');
    expect(shown).toMatchObject({
      scheme: targets['fc1'],
      rule: expect.stringContaining('target fc1') as string,
    });
  });

  it.each(['wint8', 'w8a8', 'block_wise_fp8'])(
    'measures %s, and says who computes it',
    async (quantization) => {
      writeOnnx(file, buildModel());
      const flags = { quantization, quantizationConfig: { ignore: ['fc1', 'fc2'] } };
      const { report, explain } = await inspect({ quantization: flags, measure: true });
      const load = { ...fixtureOptions(file), ...flags };
      const { weightBytes } = await convertFolder(file, dir, undefined, { format: 'onnx', load });
      expect(report.totals.bytesAfter).toBe(weightBytes);
      expect(report.scheme).toBe(quantization);
      const row = (name: string) =>
        report.layers.find((each) => each.name === name && each.kind !== 'Gather');
      expect(row('easy')?.kernel).toBe(
        quantization === 'block_wise_fp8' ? 'ONNX Runtime Gemm' : 'ONNX Runtime MatMulNBits',
      );
      expect(row('easy')?.error?.frobenius).toBeGreaterThan(0);
      expect(row('odd[0]')?.error?.frobenius).toBeGreaterThan(row('easy')?.error?.frobenius ?? 1);
      expect(row('fc1')).toMatchObject({ scheme: 'none', kernel: 'ONNX Runtime MoE', error: null });
      expect(explain?.('fc1')[0]?.rules.find(({ isDecisive }) => isDecisive)?.rule).toContain('ignore fc1');
    },
  );

  it('refuses what convert would refuse', async () => {
    writeOnnx(file, buildModel());
    await expect(inspect({ quantization: { quantization: 'wnf4' } })).rejects.toMatchObject({
      code: 'unsupported_model',
    });
    const { output } = await convertFolder(file, dir, 'wint8', { format: 'onnx' });
    await expect(inspect({ model: path.join(output, 'model.onnx'), measure: true })).rejects.toMatchObject({
      code: 'unsupported_model',
      message: expect.stringContaining('has no MatMul, Gemm or MoE') as string,
    });
  });
});
