import { monitorEventLoopDelay } from 'node:perf_hooks';
import { Counter, Gauge, Registry } from 'prom-client';
import type { EngineObserver, EngineStats } from '../engine/types.js';
import type { BuildInfo } from './context.js';
import { addEngineMetrics } from './metrics-engine.js';
import { addProcessMetrics } from './metrics-process.js';

export interface MetricsOptions {
  readonly modelName: string;
  /** Largest bound of the token histograms; default 131072. */
  readonly maxModelLen?: number;
  /** Also expose the names of vLLM's dashboards; default true. */
  readonly vllmNames?: boolean;
}

/** What is known once the model is loaded. */
export interface LoadedInfo {
  readonly scheme: string;
  readonly executionProvider: string;
  readonly blockSize: number;
  readonly numBlocks: number;
  readonly build: BuildInfo;
  readonly stats: () => EngineStats;
}

export interface ServerMetrics {
  /** Give this to the engine. */
  readonly observer: EngineObserver;
  readonly registry: Registry;
  readonly contentType: string;
  render(): Promise<string>;
  setLoaded(info: LoadedInfo): void;
  setLoadSeconds(phase: 'read' | 'quantize' | 'build' | 'warmup', seconds: number): void;
  setWeightBytes(scheme: string, bytes: number): void;
  countRequest(route: string, status: number): void;
  countFailure(code: string): void;
  countUnknownFields(count: number): void;
  close(): void;
}

/** Resolution of the event loop measurement. */
const LOOP_RESOLUTION_MS = 10;
const NS_PER_S = 1e9;
const LOOP_QUANTILES = [50, 90, 99, 100] as const;

function addLoopLag(registry: Registry): () => void {
  const delay = monitorEventLoopDelay({ resolution: LOOP_RESOLUTION_MS });
  delay.enable();
  new Gauge({
    name: 'fdq:event_loop_lag_seconds',
    help: 'Delay of the event loop since the last scrape, by quantile.',
    labelNames: ['quantile'],
    registers: [registry],
    collect() {
      for (const quantile of LOOP_QUANTILES) {
        const seconds = delay.count === 0 ? 0 : delay.percentile(quantile) / NS_PER_S;
        // The timer itself takes its resolution; what is over it is the lag.
        this.set({ quantile: String(quantile / 100) }, Math.max(0, seconds - LOOP_RESOLUTION_MS / 1000));
      }
      delay.reset();
    },
  });
  return () => delay.disable();
}

/** Metrics of one server, in a registry of its own. */
export function createMetrics(options: MetricsOptions): ServerMetrics {
  const registry = new Registry();
  const stopLoopLag = addLoopLag(registry);
  addProcessMetrics(registry);
  const engine = addEngineMetrics(registry, options);
  const registers = [registry];
  const requests = new Counter({
    name: 'fdq:http_requests_total',
    help: 'Answered HTTP requests.',
    labelNames: ['route', 'status'],
    registers,
  });
  const failures = new Counter({
    name: 'fdq:request_failures_total',
    help: 'Failed requests by error code.',
    labelNames: ['code'],
    registers,
  });
  const unknown = new Counter({
    name: 'fdq:unknown_request_fields_total',
    help: 'Fields of requests that were ignored because nothing knows them.',
    registers,
  });
  const loadSeconds = new Gauge({
    name: 'fdq:model_load_seconds',
    help: 'Time to load the model, by phase.',
    labelNames: ['phase'],
    registers,
  });
  const weightBytes = new Gauge({
    name: 'fdq:weight_bytes',
    help: 'Bytes of weights in memory, by scheme.',
    labelNames: ['scheme'],
    registers,
  });
  const buildInfo = new Gauge({
    name: 'fdq:build_info',
    help: 'Always 1; the labels say what runs.',
    labelNames: ['version', 'onnxruntime', 'scheme', 'ep'],
    registers,
  });
  return {
    observer: engine.observer,
    registry,
    contentType: registry.contentType,
    render: () => registry.metrics(),
    setLoaded(info) {
      const { build, scheme, executionProvider: ep } = info;
      buildInfo.set({ version: build.version, onnxruntime: build.onnxruntime, scheme, ep }, 1);
      engine.setLoaded(info);
    },
    setLoadSeconds: (phase, seconds) => loadSeconds.set({ phase }, seconds),
    setWeightBytes: (scheme, bytes) => weightBytes.set({ scheme }, bytes),
    countRequest: (route, status) => requests.inc({ route, status: String(status) }),
    countFailure: (code) => failures.inc({ code }),
    countUnknownFields: (count) => unknown.inc(count),
    close: stopLoopLag,
  };
}
