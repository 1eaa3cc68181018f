import { describe, expect, it } from 'vitest';
import type { SamplingParams } from '../../../src/engine/types.js';
import { createMetrics } from '../../../src/server/metrics.js';

const PARAMS = { maxTokens: 100, n: 2 } as SamplingParams;

async function values(render: () => Promise<string>): Promise<Map<string, number>> {
  const lines = (await render()).split('\n').filter((line) => line !== '' && !line.startsWith('#'));
  return new Map(
    lines.map((line) => {
      const at = line.lastIndexOf(' ');
      return [line.slice(0, at), Number(line.slice(at + 1))];
    }),
  );
}

const LABELS = 'model_name="m",engine="0"';

describe('metrics', () => {
  it('expose what dashboards expect under both names', async () => {
    const metrics = createMetrics({ modelName: 'm' });
    try {
      metrics.observer.onStep({ promptTokens: 30, generatedTokens: 4, seconds: 0.02 });
      metrics.observer.onFirstToken(0.05);
      metrics.observer.onInterToken(0.03);
      metrics.observer.onPreemption();
      metrics.observer.onPrefixQuery(30, 16);
      metrics.observer.onFinish({
        reason: 'length',
        promptTokens: 30,
        generatedTokens: 5,
        params: PARAMS,
        timings: { arrival: 1, scheduled: 1.5, firstToken: 2, finished: 4 },
      });
      metrics.setLoaded({
        scheme: 'wint8',
        executionProvider: 'cpu',
        blockSize: 16,
        numBlocks: 100,
        build: { version: '1', onnxruntime: '2' },
        stats: () => ({
          ...{ running: 3, waiting: 1, kvBlocksUsed: 25, kvBlocksTotal: 100 },
          requests: { accepted: 10, finished: 3, cancelled: 2, failed: 1, live: 4 },
        }),
      });
      await metrics.render();
      const found = await values(() => metrics.render());
      for (const prefix of ['fdq', 'vllm']) {
        const get = (name: string, labels = LABELS): number | undefined =>
          found.get(`${prefix}:${name}{${labels}}`);
        expect(get('num_requests_running')).toBe(3);
        expect(get('num_requests_waiting')).toBe(1);
        expect(get('kv_cache_usage_perc')).toBe(0.25);
        expect(get('gpu_cache_usage_perc')).toBe(0.25);
        expect(get('prompt_tokens_total')).toBe(30);
        expect(get('generation_tokens_total')).toBe(4);
        expect(get('prefix_cache_queries_total')).toBe(30);
        expect(get('prefix_cache_hits_total')).toBe(16);
        expect(get('num_preemptions_total')).toBe(1);
        expect(get('request_success_total', `${LABELS},finished_reason="length"`)).toBe(1);
        expect(get('request_success_total', `${LABELS},finished_reason="stop"`)).toBe(0);
        expect(get('time_to_first_token_seconds_bucket', `le="0.06",${LABELS}`)).toBe(1);
        expect(get('time_to_first_token_seconds_bucket', `le="0.04",${LABELS}`)).toBe(0);
        expect(get('inter_token_latency_seconds_sum')).toBe(0.03);
        expect(get('time_per_output_token_seconds_count')).toBe(1);
        expect(get('request_time_per_output_token_seconds_sum')).toBe(0.5);
        expect(get('e2e_request_latency_seconds_sum')).toBe(3);
        expect(get('request_queue_time_seconds_sum')).toBe(0.5);
        expect(get('request_inference_time_seconds_sum')).toBe(2.5);
        expect(get('request_prefill_time_seconds_sum')).toBe(0.5);
        expect(get('request_decode_time_seconds_sum')).toBe(2);
        expect(get('request_prompt_tokens_sum')).toBe(30);
        expect(get('request_generation_tokens_sum')).toBe(5);
        expect(get('request_params_max_tokens_sum')).toBe(100);
        expect(get('request_max_num_generation_tokens_sum')).toBe(100);
        expect(get('request_params_n_sum')).toBe(2);
        expect(get('iteration_tokens_total_sum')).toBe(34);
        expect(get('cache_config_info', `${LABELS},block_size="16",num_gpu_blocks="100"`)).toBe(1);
      }
      const balance = Object.entries({ accepted: 10, finished: 3, cancelled: 2, failed: 1 });
      for (const [event, count] of balance) {
        expect(found.get(`fdq:engine_requests_total{event="${event}"}`)).toBe(count);
      }
      expect(found.get('fdq:engine_requests_live')).toBe(4);
      expect(found.get('fdq:build_info{version="1",onnxruntime="2",scheme="wint8",ep="cpu"}')).toBe(1);
      expect(found.get('fdq:event_loop_lag_seconds{quantile="0.99"}')).toBeGreaterThanOrEqual(0);
      expect(found.get('process_resident_memory_bytes')).toBeGreaterThan(1e6);
    } finally {
      metrics.close();
    }
  });

  it('belong to one server', async () => {
    const one = createMetrics({ modelName: 'a', vllmNames: false });
    const other = createMetrics({ modelName: 'b' });
    one.observer.onPreemption();
    const text = await other.render();
    expect(text).toContain('fdq:num_preemptions_total{model_name="b",engine="0"} 0');
    expect(await one.render()).not.toContain('vllm:');
    one.setLoadSeconds('quantize', 1.5);
    one.setWeightBytes('wint8', 1000);
    expect(await one.render()).toContain('fdq:model_load_seconds{phase="quantize"} 1.5');
    expect(one.contentType).toBe('text/plain; version=0.0.4; charset=utf-8');
    one.close();
    other.close();
  });
});
