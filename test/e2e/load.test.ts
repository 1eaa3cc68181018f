import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import process from 'node:process';
import { pathToFileURL } from 'node:url';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';
import type { BenchReport } from '../../src/bench/report.js';
import { BIN, cleanEnvironment, ROOT } from '../helpers/cli.js';
import { eventually } from '../helpers/eventually.js';
import { createTempDir } from '../helpers/temp-dir.js';
import { serveProcess, type ServedProcess } from '../helpers/serve-process.js';

const run = promisify(execFile);
const DEMO = path.join(ROOT, 'models', 'demo');
const STREAMS = 32;
/** Without what the loop waited for a core: that is the machine's. */
const LAG_BOUND_SECONDS = 0.03;
const PROBE = path.join(import.meta.dirname, '..', 'helpers', 'loop-probe.mjs');
/** Memory the allocator may keep over what it had when the server was warm. */
const RSS_GROWTH_BOUND = 1.1;

/** What loop-probe.mjs writes, in seconds. */
interface LoopProbe {
  readonly samples: number;
  readonly late: number;
  readonly own: number;
}

function residentKilobytes(pid: number): number {
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]);
}

/** Small seeded generator (mulberry32). */
function randomSource(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Streams an answer and leaves after `chunks` of it; all of it when undefined. */
async function stream(url: string, prompt: string, chunks: number | undefined): Promise<'complete' | 'left'> {
  const controller = new AbortController();
  const response = await fetch(`${url}/v1/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ prompt, max_tokens: 24, temperature: 1, ignore_eos: true, stream: true }),
    signal: controller.signal,
  });
  expect(response.status).toBe(200);
  let text = '';
  let seen = 0;
  try {
    for await (const chunk of response.body ?? []) {
      text += Buffer.from(chunk as Uint8Array).toString();
      if (++seen === chunks) controller.abort();
    }
  } catch (error) {
    if (!controller.signal.aborted) throw error;
    return 'left';
  }
  expect(text.endsWith('data: [DONE]\n\n')).toBe(true);
  return 'complete';
}

async function expectIdle(server: ServedProcess): Promise<void> {
  await eventually(async () => {
    expect(await server.metric('vllm:num_requests_running')).toBe(0);
    expect(await server.metric('vllm:num_requests_waiting')).toBe(0);
    expect(await server.metric('vllm:kv_cache_usage_perc')).toBe(0);
  });
}

describe('a server under load', () => {
  it('serves 32 streams without an error and without holding the event loop', async () => {
    const probeFile = path.join(await createTempDir(), 'probe.json');
    const server = await serveProcess(
      [DEMO, '--quantization', 'block_wise_fp8', '--kv-cache-memory', '128MiB'],
      { NODE_OPTIONS: `--import ${pathToFileURL(PROBE).href}`, LOOP_PROBE_FILE: probeFile },
    );
    const flags = {
      url: server.url,
      backend: 'openai-chat',
      tokenizer: DEMO,
      'max-concurrency': STREAMS,
      'num-prompts': 192,
      'random-input-len': 128,
      'random-output-len': 48,
      temperature: 0,
    };
    const args = Object.entries(flags).flatMap(([name, value]) => [`--${name}`, String(value)]);
    // Warm: code compiled, pools filled, the lag of start-up scraped away.
    await stream(server.url, 'warm', undefined);
    await server.metric('fdq:event_loop_lag_seconds{quantile="0.99"');
    process.kill(server.pid, 'SIGUSR2');
    const { stdout } = await run(process.execPath, [BIN, 'bench', 'serve', ...args, '--json'], {
      env: cleanEnvironment(),
    });
    const lag = await server.metric('fdq:event_loop_lag_seconds{quantile="0.99"');
    const { result } = JSON.parse(stdout) as { result: BenchReport };
    const { metrics, distributions } = result.scenarios[0]!;
    expect(metrics.find(({ id }) => id === 'error_rate')?.value).toBe(0);
    expect(distributions?.find(({ id }) => id === 'e2el')?.count).toBe(192);
    await expectIdle(server);
    expect(await server.stop()).toBe(0);
    const probe = JSON.parse(readFileSync(probeFile, 'utf8')) as LoopProbe;
    expect(probe.samples).toBeGreaterThan(100);
    expect(probe.own).toBeLessThan(LAG_BOUND_SECONDS);
    // What the server says of itself holds the waiting, too.
    expect(Math.abs(lag - probe.late)).toBeLessThan(0.01 + probe.late / 2);
  });

  it('keeps its memory flat and loses no KV block over clients that leave', async () => {
    const server = await serveProcess([DEMO, '--quantization', 'wint8', '--kv-cache-memory', '8MiB']);
    const random = randomSource(7);
    let left = 0;
    const serveSome = async (count: number): Promise<void> => {
      let next = 0;
      const worker = async (): Promise<void> => {
        while (next++ < count) {
          const prompt = Array.from({ length: 4 + Math.floor(random() * 60) }, () =>
            Math.floor(random() * 100),
          ).join(' ');
          const outcome = await stream(
            server.url,
            prompt,
            random() < 0.5 ? 1 + Math.floor(random() * 8) : undefined,
          );
          if (outcome === 'left') left++;
        }
      };
      await Promise.all(Array.from({ length: STREAMS }, worker));
      await expectIdle(server);
    };
    await serveSome(300);
    const warm = residentKilobytes(server.pid);
    await serveSome(1000);
    expect(left).toBeGreaterThan(100);
    expect(residentKilobytes(server.pid)).toBeLessThan(warm * RSS_GROWTH_BOUND);
    expect(await server.stop()).toBe(0);
  });
});
