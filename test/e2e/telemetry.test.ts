import { execFile } from 'node:child_process';
import { readdir } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import { expect, it } from 'vitest';
import { GraphBuilder } from '../../src/graph/builder.js';
import { BIN, ROOT } from '../helpers/cli.js';
import { fillValues, writeOnnx } from '../helpers/onnx-model.js';
import { createTempDir } from '../helpers/temp-dir.js';

it('loads ONNX Runtime without its telemetry: no device id, no database of events, no log', async () => {
  const home = await createTempDir();
  // Nothing of this environment: ONNX Runtime holds its telemetry back by itself where it sees a CI service.
  const env = { PATH: process.env['PATH'], HOME: home, TMPDIR: home };
  const { stdout } = await promisify(execFile)(process.execPath, [BIN, 'inspect', 'models/demo', '--json'], {
    cwd: ROOT,
    env,
  });
  expect(JSON.parse(stdout)).toMatchObject({ status: 0 });
  expect(await readdir(home)).toEqual([]);
});

it('verifies ONNX models without it too', async () => {
  const home = await createTempDir();
  const dir = await createTempDir();
  const builder = GraphBuilder.create('g', new Map([['', 21]]));
  const x = builder.input('x', 'float32', ['n', 32]);
  const w = builder.constant('w', 'float32', [32, 32], fillValues(32 * 32, 1));
  const output = { name: 'y', dataType: 'float32', shape: ['n', 32] } as const;
  builder.output(builder.value({ opType: 'MatMul', inputs: [x, w], output }));
  writeOnnx(path.join(dir, 'model.onnx'), builder.build());
  const env = { PATH: process.env['PATH'], HOME: home, TMPDIR: home };
  const flags = ['--format', 'onnx', '--quantization', 'wint8', '--verify', '--json'];
  const command = [BIN, 'convert', path.join(dir, 'model.onnx'), '--output', path.join(dir, 'out'), ...flags];
  const { stdout } = await promisify(execFile)(process.execPath, command, { cwd: ROOT, env });
  expect(JSON.parse(stdout)).toMatchObject({ status: 0 });
  expect(await readdir(home)).toEqual([]);
});
