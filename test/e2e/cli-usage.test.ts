import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { ROOT, runCli, type CliResult } from '../helpers/cli.js';
import { createTempDir } from '../helpers/temp-dir.js';

/** One message, nothing on stdout, no stack trace, no internals. */
function expectCleanError(result: CliResult, code: number): void {
  expect(result.stderr).not.toMatch(/^\s+at /m);
  expect(result.stderr).not.toContain(ROOT);
  expect(result.stderr.match(/^Error: /gm)).toHaveLength(1);
  expect(result.stderr.length).toBeLessThan(600);
  expect({ code: result.code, stdout: result.stdout }).toEqual({ code, stdout: '' });
}

interface JsonError {
  readonly status: number;
  readonly error: {
    readonly code: string;
    readonly message: string;
    readonly param: string;
    readonly suggestions: readonly string[];
  };
}

describe.concurrent('usage errors', () => {
  it.each([
    [['serve', 'm', '--gpu-mem', '0.5'], 'Did you mean --gpu-memory-utilization?'],
    [['serve', 'm', '--enable-lora'], '--enable-lora is not supported: LoRA adapters are not supported.'],
    [['serve', 'm', '--speculative_config={}'], '--speculative-config is not supported'],
    [['serve', 'm', '--tensor_parallel_size=2'], '--tensor-parallel-size'],
    [
      ['serve', 'm', '--device', 'cuda'],
      '--device cuda is not supported: this version of fdq runs on the CPU',
    ],
    [['serve', 'm', '--port', 'http'], 'Expected --port to be a port from 0 to 65535 but received "http".'],
    [['serve', 'm', '--max-model-len'], 'Flag --max-model-len expects a value.'],
    [['serve', 'm', 'extra'], 'Unexpected argument: extra'],
    [['serve', 'm', '-x'], 'Unknown flag'],
    [['serve'], 'Expected a model'],
  ])('%j', async (args, message) => {
    const result = await runCli(args);
    expect(result.stderr).toContain(message);
    expectCleanError(result, 2);
  });

  it('has the same exit code and message with --json, on stdout and without internals', async () => {
    const args = ['serve', 'm', '--quantisation', 'wint8'];
    const [text, json] = await Promise.all([runCli(args), runCli([...args, '--json'])]);
    expectCleanError(text, 2);
    expect({ code: json.code, stderr: json.stderr }).toEqual({ code: 2, stderr: '' });
    const { status, error } = JSON.parse(json.stdout) as JsonError;
    expect(status).toBe(2);
    expect(error).toEqual({
      code: 'usage',
      message: 'Unknown flag --quantisation.',
      param: 'quantisation',
      suggestions: ['Did you mean --quantization? See all flags with --help.'],
      causes: [],
    });
    expect(text.stderr).toContain(error.message);
  });

  it('shows where it happened only with FDQ_DEBUG', async () => {
    const result = await runCli(['serve', 'm', '--port', 'x'], { env: { FDQ_DEBUG: '1' } });
    expect(result.stderr).toMatch(/^\s+at /m);
    expect(result.code).toBe(2);
  });

  it('names the nearest command and exits with 127', async () => {
    const result = await runCli(['serv', '--model', 'm']);
    expect(result.stderr).toContain('Did you mean fdq serve?');
    expectCleanError(result, 127);
  });
});

describe('settings', () => {
  it('prints every value with where it came from, command line over environment over file', async () => {
    const folder = await createTempDir();
    const file = path.join(folder, 'fdq.yaml');
    await writeFile(file, 'port: 9001\nmax_model_len: 8k\nhost: ::1\nlog-level: debug\napi-key: [a, b]\n');
    const result = await runCli(['serve', 'demo', '--config', file, '--print-config', '--port=9003'], {
      env: { FDQ_PORT: '9002', FDQ_LOG_LEVEL: 'error' },
      cwd: folder,
    });
    expect(result.stderr).toBe('');
    expect(result.code).toBe(0);
    const lines = result.stdout.split('\n');
    expect(lines).toContain('model: "demo"  # command line');
    expect(lines).toContain('port: 9003  # command line');
    expect(lines).toContain('log-level: "error"  # FDQ_LOG_LEVEL');
    expect(lines).toContain(`max-model-len: 8192  # ${file}:2`);
    expect(lines).toContain('max-concurrency: 512  # default');
    expect(lines).toContain(`# api-key: 2 hidden  # ${file}:5`);
    expect(lines).toContain('# revision:');
  });

  it('reads JSON flags in parts, from files and key by key', async () => {
    const file = path.join(await createTempDir(), 'plan.yaml');
    await writeFile(file, 'linear: wint8\nignore: [lm_head]\n');
    const result = await runCli([
      ...['serve', 'm', '--print-config', '--json', '-q', 'W4A16C8', '--quantization-config', `@${file}`],
      ...['--quantization_config.ignore+', 're:.*o_proj', '--quantization-config.targets.*.v_proj=wint4'],
    ]);
    const json = JSON.parse(result.stdout) as { result: Record<string, { value: unknown }> };
    expect(json.result['quantization']?.value).toBe('W4A16C8');
    expect(json.result['quantization-config']?.value).toEqual({
      linear: 'wint8',
      ignore: ['lm_head', 're:.*o_proj'],
      targets: { '*.v_proj': 'wint4' },
    });
  });

  it('prints settings as JSON, and warns about flags it does not use', async () => {
    const args = ['serve', 'm', '--print-config', '--json', '--engine_worker_queue_port', '8182'];
    const result = await runCli(args);
    const json = JSON.parse(result.stdout) as {
      status: number;
      result: Record<string, unknown>;
      warnings: string[];
    };
    expect(json.status).toBe(0);
    expect(json.result['port']).toEqual({ value: 8000, origin: 'default' });
    expect(json.warnings).toHaveLength(1);
    expect(json.warnings[0]).toContain('--engine-worker-queue-port');
    expect(result.stderr).toBe('');
  });

  it('warns about variables that no command reads, once each, and about no others', async () => {
    const env = { FDQ_MAX_MODLE_LEN: '4', FDQ_FAIL_IF: 'kl > 1', FDQ_N_PROMPT: '8', FDQ_ISA: 'scalar' };
    const args = ['serve', 'm', '--print-config'];
    const [text, json] = await Promise.all([runCli(args, { env }), runCli([...args, '--json'], { env })]);
    const warnings = [
      'Unknown environment variable FDQ_FAIL_IF: --fail-if can only be given on the command line.',
      'Unknown environment variable FDQ_MAX_MODLE_LEN: it has no effect. Did you mean FDQ_MAX_MODEL_LEN?',
    ];
    expect({ code: text.code, stderr: text.stderr }).toEqual({
      code: 0,
      stderr: warnings.map((line) => `Warning: ${line}\n`).join(''),
    });
    expect({ code: json.code, stderr: json.stderr }).toEqual({ code: 0, stderr: '' });
    expect(JSON.parse(json.stdout)).toMatchObject({ status: 0, warnings });
  });

  it('warns about them where the command fails too, and not in a command without settings', async () => {
    const env = { FDQ_MODLE: 'm' };
    const [failed, version] = await Promise.all([
      runCli(['serve', '--json'], { env }),
      runCli(['version'], { env }),
    ]);
    expect(JSON.parse(failed.stdout)).toMatchObject({
      status: 2,
      error: { code: 'usage', param: 'model' },
      warnings: [expect.stringContaining('Did you mean FDQ_MODEL?')],
    });
    expect({ code: version.code, stderr: version.stderr }).toEqual({ code: 0, stderr: '' });
  });

  it.each([
    ['port: 80\nmax-modle-len: 4\n', 'Line 2 of', 'Did you mean max-model-len?'],
    ['port: [1, 2]\n', 'Line 1 of', 'port is not one value'],
    ['port: "x"\n', 'port (line 1 of', 'a port from 0 to 65535'],
    ['port: 80\nhost: x: y\n', 'Line 2 of', 'Check the YAML'],
  ])('refuses the config file %j', async (text, where, what) => {
    const file = path.join(await createTempDir(), 'bad.yaml');
    await writeFile(file, text);
    const result = await runCli(['serve', 'm', '--config', file]);
    expect(result.stderr).toContain(where);
    expect(result.stderr).toContain(what);
    expectCleanError(result, 2);
  });
});

describe('fdq from any folder', () => {
  it('prints its version with -v and as a command', async () => {
    const folder = await createTempDir();
    const [short, long] = await Promise.all([
      runCli(['-v'], { cwd: folder }),
      runCli(['version', '--json'], { cwd: folder }),
    ]);
    expect(short.stdout).toMatch(/^fdq\/\d+\.\d+\.\d+ linux-\S+ node-v\d+/);
    const { result } = JSON.parse(long.stdout) as { result: { onnxruntime: string } };
    expect(result.onnxruntime).toMatch(/^1\.30\./);
  });

  it('shows help with groups, environment names and defaults', async () => {
    const { stdout, code } = await runCli(['serve', '-h'], { cwd: await createTempDir() });
    expect(code).toBe(0);
    for (const group of ['MODEL', 'QUANTIZATION', 'MEMORY', 'SERVER', 'OUTPUT', 'GLOBAL']) {
      expect(stdout).toContain(`${group} FLAGS`);
    }
    expect(stdout).toContain('[default: 8000, env: FDQ_PORT]');
  });
});
