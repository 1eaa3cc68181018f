import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { readFile, rm } from 'node:fs/promises';
import { request } from 'node:http';
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
/** Far more than a server takes for a token: only an answer that never comes ends by it. */
const SILENCE_MS = 120_000;
/** For its work, and most of the time for whatever else but waiting for a core: that is the machine's. */
const LAG_BOUND_SECONDS = 0.03;
const PROBE = path.join(import.meta.dirname, '..', 'helpers', 'loop-probe.mjs');
/** The two timers do not look at the same moments. */
const TIMER_SECONDS = 0.01;
const MEMORY_PROBE = path.join(import.meta.dirname, '..', 'helpers', 'memory-probe.mjs');
/** Of the memory that is left when garbage is collected, over a phase of clients: a leak of some KB a client is more. */
const FLAT_BOUND = 1.02;
const CLIENTS_A_PHASE = 400;
/** Allocators keep some of what they gave: memory is flat when a phase adds nothing to it. */
const MAX_PHASES = 8;

interface Percentiles {
  readonly p90: number;
  readonly p99: number;
  readonly max: number;
}

/** What loop-probe.mjs writes, in seconds. */
interface LoopProbe {
  readonly samples: number;
  readonly late: Percentiles;
  readonly own: Percentiles;
  readonly work: Percentiles;
}

/** What memory-probe.mjs writes, in bytes. */
interface MemoryProbe {
  readonly resident: number;
  readonly live: number;
}

async function measureMemory({ pid }: ServedProcess, file: string): Promise<MemoryProbe> {
  await rm(file, { force: true });
  process.kill(pid, 'SIGUSR2');
  return JSON.parse(await eventually(() => readFile(file, 'utf8'))) as MemoryProbe;
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

/**
 * Streams an answer and leaves after `chunks` of it; all of it when undefined. Each on a connection of its own, which
 * ends with an error where nothing comes for long.
 */
function stream(url: string, prompt: string, chunks: number | undefined): Promise<'complete' | 'left'> {
  const body = JSON.stringify({ prompt, max_tokens: 24, temperature: 1, ignore_eos: true, stream: true });
  const options = { method: 'POST', agent: false, headers: { 'content-type': 'application/json' } };
  return new Promise((resolve, reject) => {
    const sent = request(`${url}/v1/completions`, options, (response) => {
      let text = '';
      let seen = 0;
      response.on('data', (chunk: Buffer) => {
        text += chunk.toString();
        if (++seen !== chunks || response.statusCode !== 200) return;
        resolve('left');
        response.destroy();
      });
      response.on('error', reject);
      response.on('end', () => {
        if (response.statusCode === 200 && text.endsWith('data: [DONE]\n\n')) resolve('complete');
        else reject(new Error(`HTTP ${response.statusCode}: ${text}`));
      });
    });
    sent.on('error', reject);
    sent.setTimeout(SILENCE_MS, () => sent.destroy(new Error(`silence for ${SILENCE_MS} ms`)));
    sent.end(body);
  });
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
    expect(probe.work.p99, JSON.stringify(probe)).toBeLessThan(LAG_BOUND_SECONDS);
    expect(probe.own.p90, JSON.stringify(probe)).toBeLessThan(LAG_BOUND_SECONDS);
    // What the server says of itself holds the waiting, too.
    expect(lag).toBeGreaterThan(probe.late.p90 - TIMER_SECONDS);
    expect(lag).toBeLessThan(probe.late.max + TIMER_SECONDS);
  });

  it('keeps its memory flat and loses no KV block over clients that leave', async () => {
    const file = path.join(await createTempDir(), 'memory.json');
    const server = await serveProcess([DEMO, '--quantization', 'wint8', '--kv-cache-memory', '8MiB'], {
      NODE_OPTIONS: `--import ${pathToFileURL(MEMORY_PROBE).href}`,
      MEMORY_PROBE_FILE: file,
    });
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
    const phases: MemoryProbe[] = [];
    const isFlat = (): boolean => {
      const [before, now] = phases.slice(-2);
      if (before === undefined || now === undefined) return false;
      return now.live < before.live * FLAT_BOUND && now.resident < before.resident * FLAT_BOUND;
    };
    while (!isFlat() && phases.length < MAX_PHASES) {
      await serveSome(CLIENTS_A_PHASE);
      phases.push(await measureMemory(server, file));
    }
    expect(left).toBeGreaterThan(100);
    expect(isFlat(), JSON.stringify(phases)).toBe(true);
    expect(await server.stop()).toBe(0);
  });
});
