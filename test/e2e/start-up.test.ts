import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it, type TestContext } from 'vitest';
import { runCli } from '../helpers/cli.js';
import { createTempDir } from '../helpers/temp-dir.js';

interface Coverage {
  readonly result: readonly { readonly url: string }[];
}

/** Packages that a run of the command line loaded, as V8 lists its scripts. */
async function packagesOf(
  args: readonly string[],
  { onTestFinished }: TestContext,
): Promise<ReadonlySet<string>> {
  const folder = await createTempDir(onTestFinished);
  await runCli(args, { env: { NODE_V8_COVERAGE: folder } });
  const scripts = readdirSync(folder).flatMap((name) => {
    const { result } = JSON.parse(readFileSync(path.join(folder, name), 'utf8')) as Coverage;
    return result.map(({ url }) => url);
  });
  const names = scripts.map((url) => /.*\/node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(url)?.[1] ?? '');
  return new Set(names);
}

/** What only a command that does its work needs; all else of the time before an answer is oclif's own. */
const HEAVY = [
  '@huggingface/hub',
  '@huggingface/jinja',
  '@huggingface/tokenizers',
  'cli-table3',
  'csv-stringify',
  'fastify',
  'hdr-histogram-js',
  'listr2',
  'onnx-proto',
  'onnxruntime-node',
  'pino',
  'prom-client',
  'simple-statistics',
  'xmlbuilder2',
  'yaml',
  'zod',
];

describe.concurrent('the start of the command line', () => {
  it.for<[readonly string[]]>([
    [['--help']],
    [['serve', '--bad']],
    [['serve', '--port', 'http']],
    [['convert', '--bad']],
    [['inspect', '--bad']],
    [['bench', '--bad']],
    [['bench', 'serve', '--bad']],
    [['bench', 'quality', '--bad']],
    [['cache', 'verify', '--bad']],
  ])('loads nothing heavy for %j', async ([args], context) => {
    const packages = await packagesOf(args, context);
    expect(packages).toContain('@oclif/core');
    expect(HEAVY.filter((name) => packages.has(name))).toEqual([]);
  });

  it('tells what is loaded', async (context) => {
    expect(await packagesOf(['inspect', 'models/demo'], context)).toContain('cli-table3');
  });
});
