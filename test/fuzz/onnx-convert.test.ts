import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import process from 'node:process';
import onnxProto from 'onnx-proto';
import { expect, it } from 'vitest';
import { FdqError } from '../../src/errors.js';
import { GraphBuilder, intAttribute } from '../../src/graph/builder.js';
import { inspectModel } from '../../src/inspect/inspect.js';
import { convertFolder } from '../helpers/convert-fixture.js';
import { fillValues, writeOnnx } from '../helpers/onnx-model.js';
import { fc } from '../helpers/properties.js';
import { createTempDir } from '../helpers/temp-dir.js';

const { ModelProto } = onnxProto.onnx;
const [K, N] = [32, 48];
/** CPU time of one model through all commands: what else the machine does is not counted. */
const MAX_SECONDS = 5;

const edge = fc.constantFrom(
  0,
  1,
  -1,
  2,
  7,
  32,
  255,
  2 ** 20,
  2 ** 31 - 1,
  2 ** 31,
  2 ** 40,
  2 ** 53 - 1,
  -(2 ** 31),
);
const name = fc.constantFrom('x', 'w', 'v', 'h', 'y', 'bias', '', 'elsewhere');
const operator = fc.constantFrom(
  'MatMul',
  'Gemm',
  'Transpose',
  'Cast',
  'Gather',
  'If',
  'MoE',
  'QMoE',
  'MatMulNBits',
);
const change = fc.oneof(
  fc.record({ kind: fc.constant('dim' as const), at: fc.nat(3), axis: fc.nat(2), value: edge }),
  fc.record({ kind: fc.constant('type' as const), at: fc.nat(3), value: fc.nat(24) }),
  fc.record({ kind: fc.constant('cut' as const), at: fc.nat(3), value: fc.nat(200) }),
  fc.record({
    kind: fc.constant('external' as const),
    at: fc.nat(3),
    value: edge,
    location: fc.constantFrom('w', '../w', '/etc/passwd', 'model.onnx'),
  }),
  fc.record({ kind: fc.constant('input' as const), at: fc.nat(3), axis: fc.nat(5), value: name }),
  fc.record({ kind: fc.constant('output' as const), at: fc.nat(3), value: name }),
  fc.record({ kind: fc.constant('operator' as const), at: fc.nat(3), value: operator }),
  fc.record({
    kind: fc.constant('attribute' as const),
    at: fc.nat(3),
    name: fc.constantFrom('transB', 'alpha', 'perm', 'k', 'N', 'K', 'bits'),
    value: edge,
  }),
  fc.record({ kind: fc.constant('opset' as const), value: edge }),
  fc.record({ kind: fc.constant('copies' as const), at: fc.nat(3), value: fc.nat(300) }),
  fc.record({ kind: fc.constant('nest' as const), value: fc.nat(40) }),
  fc.record({ kind: fc.constant('byte' as const), at: fc.nat(400), value: fc.nat(255) }),
);
type Change = typeof change extends fc.Arbitrary<infer T> ? T : never;

/** y = (x w + bias) v^T, `v` with its columns turned; all weights inside of the model. */
function buildModel(): ReturnType<GraphBuilder['build']> {
  const builder = GraphBuilder.create(
    'g',
    new Map([
      ['', 21],
      ['com.microsoft', 1],
    ]),
  );
  const x = builder.input('x', 'float32', ['t', K]);
  const w = builder.constant('w', 'float32', [K, N], fillValues(K * N, 1));
  const v = builder.constant('v', 'float32', [K, N], fillValues(K * N, 2));
  const bias = builder.constant('bias', 'float32', [N], fillValues(N, 3));
  const shape = (n: number) => ({ dataType: 'float32' as const, shape: ['t', n] });
  const h = builder.value({ opType: 'Gemm', inputs: [x, w, bias], output: { name: 'h', ...shape(N) } });
  const output = { name: 'y', ...shape(K) };
  builder.output(
    builder.value({ opType: 'Gemm', inputs: [h, v], output, attributes: { transB: intAttribute(1) } }),
  );
  return builder.build();
}

function mutate(model: Uint8Array, changes: readonly Change[]): Uint8Array {
  const proto = ModelProto.decode(model);
  const { graph } = proto;
  if (graph === null || graph === undefined) throw new Error('the model has a graph');
  const { node: nodes = [], initializer: tensors = [] } = graph;
  let bytes: Uint8Array | undefined;
  for (const each of changes) {
    const tensor = 'at' in each ? tensors?.[each.at % (tensors.length || 1)] : undefined;
    const node = 'at' in each ? nodes?.[each.at % (nodes.length || 1)] : undefined;
    if (each.kind === 'dim' && tensor?.dims)
      tensor.dims[Math.min(each.axis, tensor.dims.length)] = each.value;
    if (each.kind === 'type' && tensor) tensor.dataType = each.value;
    if (each.kind === 'cut' && tensor?.rawData) tensor.rawData = tensor.rawData.subarray(0, each.value);
    if (each.kind === 'external' && tensor) {
      tensor.dataLocation = 1;
      tensor.externalData = [
        { key: 'location', value: each.location },
        { key: 'offset', value: String(each.value) },
      ];
    }
    if (each.kind === 'input' && node?.input) node.input[Math.min(each.axis, node.input.length)] = each.value;
    if (each.kind === 'output' && node) node.output = [each.value];
    if (each.kind === 'operator' && node) {
      node.opType = each.value;
      node.domain = /MoE|Bits/.test(each.value) ? 'com.microsoft' : '';
    }
    if (each.kind === 'attribute' && node) node.attribute = [{ name: each.name, type: 2, i: each.value }];
    if (each.kind === 'opset')
      proto.opsetImport = [onnxProto.onnx.OperatorSetIdProto.create({ domain: '', version: each.value })];
    if (each.kind === 'copies' && node) {
      for (let copy = 0; copy < each.value; copy++) nodes?.push({ ...node, output: [`copy${copy}`] });
    }
    if (each.kind === 'nest') {
      let body: onnxProto.onnx.IGraphProto = { name: 'b', output: [{ name: 'w' }] };
      for (let depth = 0; depth < each.value; depth++) {
        const attribute = [{ name: 'then_branch', type: 5, g: body }];
        body = {
          name: 'b',
          output: [{ name: 'd' }],
          node: [{ opType: 'If', input: ['x'], output: ['d'], attribute }],
        };
      }
      nodes?.push(...(body.node ?? []));
    }
    if (each.kind === 'byte') {
      bytes ??= Uint8Array.from(ModelProto.encode(proto).finish());
      bytes[each.at % bytes.length] = each.value;
    }
  }
  return bytes ?? ModelProto.encode(proto).finish();
}

const seen = { done: 0, refused: 0 };

async function expectAnswer(work: Promise<unknown>): Promise<void> {
  try {
    await work;
    seen.done++;
  } catch (error) {
    if (!(error instanceof FdqError) || error.code === 'internal') throw error;
    seen.refused++;
  }
}

it('inspect and convert answer any damaged ONNX model, soon', async () => {
  const dir = await createTempDir();
  const file = path.join(dir, 'in', 'model.onnx');
  mkdirSync(path.dirname(file));
  writeOnnx(file, buildModel());
  const valid = Uint8Array.from(readFileSync(file));
  const memory = { threads: 1, utilization: 0.5 };
  const inspect = (more: object) =>
    inspectModel({ model: file, quantization: {}, dtype: 'auto', memory, measure: false, ...more });
  const schemes = fc.constantFrom('wint8', 'wint4:g32', 'w8a8', 'nvfp4');
  await fc.assert(
    fc.asyncProperty(
      fc.array(change, { minLength: 1, maxLength: 3 }),
      schemes,
      async (changes, quantization) => {
        writeFileSync(file, mutate(valid, changes));
        const began = process.cpuUsage();
        await expectAnswer(inspect({}));
        await expectAnswer(inspect({ quantization: { quantization }, measure: true }));
        await expectAnswer(inspect({ auto: { maxError: 0.1 } }));
        await expectAnswer(convertFolder(file, dir, quantization, { format: 'onnx', force: true }));
        const { user, system } = process.cpuUsage(began);
        expect((user + system) / 1e6).toBeLessThan(MAX_SECONDS);
      },
    ),
    { numRuns: 60 },
  );
  expect(seen.done).toBeGreaterThan(10);
  expect(seen.refused).toBeGreaterThan(10);
});
