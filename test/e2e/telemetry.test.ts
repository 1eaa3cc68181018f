import { execFile } from 'node:child_process';
import { readdir } from 'node:fs/promises';
import { promisify } from 'node:util';
import { expect, it } from 'vitest';
import { BIN, ROOT } from '../helpers/cli.js';
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
