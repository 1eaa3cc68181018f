import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { linkSync, mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import process from 'node:process';
import { describe, expect, it, onTestFinished } from 'vitest';
import type { BenchReport, Scenario } from '../../src/bench/report.js';
import { loadRuntime } from '../../src/runtime/load-addon.js';
import { createCertificate } from '../helpers/certificate.js';
import { BIN, cleanEnvironment, ROOT, runCli, type CliResult } from '../helpers/cli.js';
import { eventually } from '../helpers/eventually.js';
import {
  answerAll,
  answerModels,
  fakeOpenAi,
  sendEvent,
  startEvents,
  textEvent,
  type FakeCall,
} from '../helpers/fake-openai.js';
import { createTempDir } from '../helpers/temp-dir.js';

const DEMO = path.join(ROOT, 'models', 'demo');
const COMPLETIONS = '/v1/completions';
const SMALL = ['--random-input-len', '8', '--random-output-len', '4', '--num-prompts', '6'];

const bench = (...args: readonly string[]): Promise<CliResult> => runCli(['bench', 'serve', ...args]);

function reportOf({ stdout }: CliResult): BenchReport {
  return (JSON.parse(stdout) as { result: BenchReport }).result;
}

const valueOf = ({ metrics }: Scenario, id: string): number | undefined =>
  metrics.find((metric) => metric.id === id)?.value;

const fake = (answer: (call: FakeCall) => void) =>
  fakeOpenAi({ '/v1/models': answerModels, [COMPLETIONS]: answer });

function failWith(call: FakeCall, status: number): void {
  call.response.writeHead(status, { 'content-type': 'application/json' }).end('{"error": {"message": "no"}}');
}

/** The server that a bench started: git, which it asks for the commit, is another child. */
function findServer(pid: number): number | undefined {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter(Boolean);
  return children.map(Number).find((child) => readProcess(child, 'cmdline').includes('\0--config\0'));
}

/** Empty for a process that is no more. */
function readProcess(pid: number, file: string): string {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'utf8');
  } catch {
    return '';
  }
}

/** Not one that has ended and waits for whoever adopted it. */
function isAlive(pid: number): boolean {
  return /^State:\s+[^ZX]/m.test(readProcess(pid, 'status'));
}

function startBench(
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): { readonly child: ChildProcess; stdout: () => string } {
  const child = spawn(process.execPath, [BIN, 'bench', 'serve', ...args], {
    env: cleanEnvironment(env),
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  onTestFinished(() => void child.kill('SIGKILL'));
  let stdout = '';
  child.stdout.on('data', (chunk: Buffer) => (stdout += chunk.toString()));
  child.stderr.resume();
  return { child, stdout: () => stdout };
}

describe('fdq bench serve --model', () => {
  it('serves the demo model, sweeps concurrency and writes documents', async () => {
    const folder = await createTempDir();
    const lengths = ['--random-input-len', '24', '--random-output-len', '6', '--num-prompts', '12'];
    const result = await bench(
      ...['--model', DEMO, '-q', 'wint8', '--no-cache', '--kv-cache-memory', '16MiB', ...lengths],
      ...['--max-concurrency', '1,3', '--num-warmups', '2', '--temperature', '0', '--repetitions', '2'],
      ...['--goodput', 'e2el:60000', '--save-result', '--save-detailed', '--result-dir', folder, '--json'],
    );
    expect(result).toMatchObject({ code: 0 });
    const report = reportOf(result);
    expect(report).toMatchObject({ kind: 'serve', partial: false, gate: null });
    const { addon, onnxruntime } = loadRuntime();
    expect(report.environment).toMatchObject({ isa: addon.detectIsa(), onnxruntime: onnxruntime.version });
    expect(report.scenarios.map(({ name }) => name)).toEqual([
      'wint8 random in=24 out=6 n=12 rate=inf c=1',
      'wint8 random in=24 out=6 n=12 rate=inf c=3',
    ]);
    for (const scenario of report.scenarios) {
      expect(valueOf(scenario, 'error_rate')).toBe(0);
      expect(valueOf(scenario, 'retries')).toBe(0);
      expect(valueOf(scenario, 'request_goodput')).toBeCloseTo(valueOf(scenario, 'request_throughput')!, 6);
      expect(scenario.metrics.find(({ id }) => id === 'ttft')?.samples).toHaveLength(2);
      expect(scenario.distributions?.find(({ id }) => id === 'e2el')?.count).toBe(24);
      // Rates of one run have one denominator: 24 prompt tokens to 6 generated ones.
      const total = valueOf(scenario, 'total_token_throughput')!;
      expect(total / valueOf(scenario, 'output_throughput')!).toBeCloseTo(5, 6);
    }
    const files = readdirSync(folder).sort();
    expect(files.map((name) => name.replace(/\d{8}-\d{6}/, 'DATE'))).toEqual([
      'openai-infqps-concurrency1-demo-DATE.json',
      'openai-infqps-concurrency3-demo-DATE.json',
    ]);
    const document = JSON.parse(readFileSync(path.join(folder, files[1]!), 'utf8')) as Record<
      string,
      unknown
    >;
    expect(document).toMatchObject({
      model_id: 'demo',
      max_concurrency: 3,
      completed: 24,
      failed: 0,
      total_input_tokens: 24 * 24,
      total_output_tokens: 24 * 6,
    });
    expect(document['input_lens']).toEqual(Array.from({ length: 24 }, () => 24));
    expect(document['output_lens']).toEqual(Array.from({ length: 24 }, () => 6));
  });

  it('takes its server along, however it ends', async () => {
    const endless = ['--num-prompts', '100000', '--max-concurrency', '2', '--random-input-len', '16'];
    // Killed, it removes nothing: what it leaves is in the test's folder.
    const env = { TMPDIR: await createTempDir() };
    const { child } = startBench(['--model', DEMO, '-q', 'wint8', '--no-cache', ...endless], env);
    const server = await eventually(() => {
      const pid = findServer(child.pid!);
      expect(pid).toBeDefined();
      return pid!;
    });
    child.kill('SIGKILL');
    await once(child, 'exit');
    await eventually(() => expect(isAlive(server)).toBe(false));
  });

  it('says why a server does not start', async () => {
    const result = await bench('--model', path.join(ROOT, 'no-such-model'), ...SMALL);
    expect(result.code).toBe(3);
    expect(result.stderr).toContain('no-such-model');
  });
});

describe('fdq bench serve --url', () => {
  it('loads any server, sends the key and prints it nowhere', async () => {
    const server = await fake(answerAll);
    const folder = await createTempDir();
    writeFileSync(path.join(folder, 'old.json'), 'old');
    linkSync(path.join(folder, 'old.json'), path.join(folder, 'new.json'));
    const result = await runCli(
      [
        ...[
          'bench',
          'serve',
          '--url',
          server.url.href,
          ...SMALL,
          '--request-rate',
          '500',
          '--max-concurrency',
          '2',
        ],
        ...['--json', '--save-result', '--save-detailed', '--result-dir', folder],
        ...['--result-filename', 'new.json'],
        ...['--percentile-metrics', 'e2el_including_client_queue', '--header', 'x-secret=k3y2'],
      ],
      { env: { FDQ_API_KEY: 'k3y1' } },
    );
    expect(result).toMatchObject({ code: 0 });
    const [scenario] = reportOf(result).scenarios;
    expect(scenario?.name).toBe('random in=8 out=4 n=6 rate=500 c=2');
    expect(scenario?.parameters).toMatchObject({
      model: 'fake',
      server: server.url.origin,
      max_concurrency: 2,
    });
    expect(valueOf(scenario!, 'queue')).toBeGreaterThanOrEqual(0);
    expect(valueOf(scenario!, 'e2el_queued')).toBeGreaterThan(0);
    const sent = server.calls.filter(({ request }) => request.url === COMPLETIONS);
    expect(sent).toHaveLength(6);
    expect(sent[0]?.request.headers).toMatchObject({ authorization: 'Bearer k3y1', 'x-secret': 'k3y2' });
    expect(sent[0]?.body).toMatchObject({ model: 'fake', max_tokens: 4, ignore_eos: true });
    const document = readFileSync(path.join(folder, 'new.json'), 'utf8');
    // Not written in place: the other name of the file that was there has its bytes, and nothing else is left.
    expect(readFileSync(path.join(folder, 'old.json'), 'utf8')).toBe('old');
    expect(readdirSync(folder)).toEqual(['new.json', 'old.json']);
    expect(JSON.parse(document)).toHaveProperty('mean_e2el_including_client_queue_ms');
    expect(`${result.stdout}${result.stderr}${document}`).not.toMatch(/k3y/);
  });

  it('refuses a result that cannot be written before it asks a server, and reports without one that fails', async () => {
    const folder = await createTempDir();
    const result = path.join(folder, 'result.json');
    const saved = ['--save-result', '--result-dir', 'no-such-folder', '--result-filename', result];
    mkdirSync(result);
    let written = 0;
    const server = await fake((call) => {
      // What was fine at the start is in the way at the end.
      if (written++ === 0) mkdirSync(result);
      answerAll(call);
    });
    const refused = await bench('--url', server.url.href, ...SMALL, ...saved);
    expect(refused.code).toBe(2);
    expect(refused.stderr).toContain('--result-filename to name a file that can be written');
    expect(server.calls).toHaveLength(0);
    rmdirSync(result);
    const lost = await bench('--url', server.url.href, ...SMALL, ...saved, '--json');
    expect(lost.code).toBe(1);
    expect(lost.stderr).toContain(`Cannot write ${result}`);
    const report = JSON.parse(lost.stdout) as { status: number; result: BenchReport };
    expect(report.status).toBe(1);
    expect(report.result.scenarios[0]?.distributions?.find(({ id }) => id === 'e2el')?.count).toBe(6);
    expect(readdirSync(folder)).toEqual(['result.json']);
  });

  it('decides about errors, and lists them by kind', async () => {
    const server = await fake((call) => (call.index % 3 === 0 ? failWith(call, 503) : answerAll(call)));
    const passed = await bench('--url', server.url.href, ...SMALL, '--fail-if', 'error_rate > 50%');
    expect(passed).toMatchObject({ code: 0 });
    expect(passed.stderr).toMatch(/2 of 6 requests failed: 2 x status 503\. The first: no/);
    const failed = await bench('--url', server.url.href, ...SMALL, '--fail-if', 'error_rate > 0');
    expect(failed.code).toBe(4);
  });

  it('waits for a server that is starting', async () => {
    const server = await fake((call) => (call.index < 2 ? failWith(call, 503) : answerAll(call)));
    const result = await bench(
      '--url',
      server.url.href,
      ...SMALL,
      '--ready-check-timeout-sec',
      '30',
      '--json',
    );
    expect(result).toMatchObject({ code: 0, stderr: expect.not.stringContaining('Listeners') as string });
    expect(valueOf(reportOf(result).scenarios[0]!, 'error_rate')).toBe(0);
  });

  it('fails when nothing succeeds, and when nobody is there', async () => {
    const server = await fake((call) => failWith(call, 400));
    const failed = await bench('--url', server.url.href, ...SMALL);
    expect(failed.code).toBe(1);
    expect(failed.stderr).toContain('All 6 requests failed: 6 x status 400. The first: no');
    const gone = await bench('--url', 'http://127.0.0.1:1', ...SMALL);
    expect(gone.code).toBe(1);
    expect(gone.stderr).toContain('Code: server_unreachable');
  });

  it.each([
    ['model_not_found', 3, 'There is no model folder "/nowhere"', ['--model', '/nowhere']],
    ['unknown_scheme', 2, 'but received "int-3"', ['--model', DEMO, '-q', 'int-3']],
  ])('ends with the error of the server it starts: %s', async (code, exitCode, message, args) => {
    const result = await bench(...args, ...SMALL, '--json');
    expect(result.code).toBe(exitCode);
    const { error } = JSON.parse(result.stdout) as {
      error: { code: string; message: string; suggestions: string[] };
    };
    expect(error).toMatchObject({ code, message: expect.stringContaining(message) as string });
    expect(error.suggestions).not.toEqual([]);
  });

  it('reports what it measured when Ctrl-C ends it', async () => {
    let interrupt = (): void => undefined;
    const held: FakeCall[] = [];
    const server = await fake((call) => {
      if (call.index < 3) answerAll(call);
      else {
        held.push(call);
        startEvents(call);
        sendEvent(call, textEvent(' half'));
        if (held.length === 2) interrupt();
      }
    });
    const { child, stdout } = startBench([
      '--url',
      server.url.href,
      ...SMALL,
      '--max-concurrency',
      '2',
      '--json',
    ]);
    interrupt = () => void child.kill('SIGINT');
    const [code] = (await once(child, 'close')) as [number];
    expect(code).toBe(130);
    const { result: report } = JSON.parse(stdout()) as { result: BenchReport };
    expect(report.partial).toBe(true);
    expect(report.scenarios[0]?.distributions?.find(({ id }) => id === 'e2el')?.count).toBe(3);
    expect(report.warnings.join()).toContain('2 requests were ended by the interruption');
    await eventually(() => expect(held.every(({ request }) => request.socket.destroyed)).toBe(true));
    expect(server.calls.filter(({ request }) => request.url === COMPLETIONS)).toHaveLength(5);
  });
});

describe('fdq bench serve over HTTPS', () => {
  async function startSecure() {
    const certificate = createCertificate();
    const server = await fakeOpenAi({ '/v1/models': answerModels, [COMPLETIONS]: answerAll }, certificate);
    const file = path.join(await createTempDir(), 'ca.pem');
    writeFileSync(file, certificate.cert);
    return { server, file, args: ['bench', 'serve', '--url', server.url.href, ...SMALL, '--json'] };
  }

  it('refuses a certificate that is not trusted, and waits for no other', async () => {
    const { server, args } = await startSecure();
    const result = await runCli([...args, '--ready-check-timeout-sec', '600']);
    const { status, error } = JSON.parse(result.stdout) as { status: number; error: Record<string, unknown> };
    expect({ code: result.code, status }).toEqual({ code: 1, status: 1 });
    expect(error).toMatchObject({
      code: 'server_unreachable',
      message: `The certificate of ${server.url.origin} is not trusted: self-signed certificate.`,
      suggestions: [
        expect.stringContaining('NODE_EXTRA_CA_CERTS=') as string,
        expect.stringContaining('--insecure') as string,
      ],
    });
    expect(server.calls).toHaveLength(0);
  });

  it('takes any certificate with --insecure, and one of a named authority without', async () => {
    const { file, args } = await startSecure();
    const results = [
      await runCli([...args, '--insecure']),
      await runCli(args, { env: { NODE_EXTRA_CA_CERTS: file } }),
    ];
    for (const result of results) {
      expect(result).toMatchObject({ code: 0, stderr: expect.not.stringContaining('Warning') as string });
      const [scenario] = reportOf(result).scenarios;
      expect(valueOf(scenario!, 'error_rate')).toBe(0);
      expect(scenario?.distributions?.find(({ id }) => id === 'e2el')?.count).toBe(6);
    }
  });
});

describe('wrong input of fdq bench serve', () => {
  it.each<[string, readonly string[], number, string]>([
    ['a flag', ['--request-rates', '5'], 2, 'Did you mean --request-rate?'],
    ['a value', ['--goodput', 'itl:5'], 2, '--goodput'],
    ['a condition', ['--fail-if', 'speed > 5'], 2, '--fail-if'],
    ['a figure left out', ['--fail-if', 'goodput < 5'], 2, 'not measured: no --goodput'],
    ['a reporter', ['--reporter', 'pdf'], 2, '--reporter'],
    ['a missing file', ['--dataset-name', 'custom', '--dataset-path', 'nowhere.jsonl'], 3, 'nowhere.jsonl'],
  ])('%s is found before any server is asked', async (_, args, code, message) => {
    const server = await fake(answerAll);
    const result = await bench('--url', server.url.href, ...args);
    expect(result.code).toBe(code);
    expect(result.stderr).toContain(message);
    expect(server.calls).toHaveLength(0);
  });

  it('a line of a data set is found before a model is loaded', async () => {
    const file = path.join(await createTempDir(), 'prompts.jsonl');
    writeFileSync(file, '{"prompt": "a"}\n{"promt": "b"}\n');
    const result = await bench(
      '--model',
      'no-such-model',
      '--dataset-name',
      'custom',
      '--dataset-path',
      file,
    );
    expect(result.code).toBe(3);
    expect(result.stderr).toContain(`Line 2 of ${file}`);
  });

  it('prompts that the server cannot take are found before they are sent', async () => {
    const server = await fakeOpenAi({
      '/v1/models': answerModels,
      '/tokenize': ({ response }) =>
        void response
          .writeHead(200, { 'content-type': 'application/json' })
          .end(JSON.stringify({ tokens: Array.from({ length: 99 }, (_, i) => i) })),
      [COMPLETIONS]: answerAll,
    });
    const result = await bench('--url', server.url.href, '--random-input-len', '4000', '--num-prompts', '2');
    expect(result.code).toBe(2);
    expect(result.stderr).toContain('Requests take up to 4128 tokens, and fake takes 4096.');
    const fits = await bench('--url', server.url.href, ...SMALL);
    expect(fits).toMatchObject({ code: 0 });
    const [prompt] = server.calls.flatMap(({ body }) =>
      Array.isArray(body['prompt']) ? [body['prompt']] : [],
    );
    expect(prompt).toHaveLength(8);
  });
});
