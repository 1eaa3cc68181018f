import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { ROOT } from '../helpers/cli.js';
import { serveProcess } from '../helpers/serve-process.js';

const DEMO = path.join(ROOT, 'models', 'demo');
const POOL_BYTES = 8 * 1024 ** 2;
/** Keys and values of 4 layers with 2 heads each, for the 16 positions of a block. */
const HEADS_OF_BLOCK = 4 * 2 * 2 * 16;

describe('the type of the KV cache', () => {
  it.each([
    [['--dtype', 'float32'], 64 * 4],
    [['--kv-cache-dtype', 'bf16'], 64 * 2],
    [['--kv-cache-dtype', 'C8'], 64 + 4],
    [['--quantization', 'W8A16C4'], 32 + 4],
    [['--quantization', 'wint8', '--kv-cache-dtype', 'fp8_e4m3'], 64 + 4],
  ])('is that of %j, and fills the pool', async (flags, headBytes) => {
    const server = await serveProcess([DEMO, ...flags, '--kv-cache-memory', `${POOL_BYTES}`]);
    const numBlocks = Math.floor(POOL_BYTES / (HEADS_OF_BLOCK * headBytes));
    const labels = `model_name="demo",engine="0",block_size="16",num_gpu_blocks="${numBlocks}"`;
    expect(await server.metric(`vllm:cache_config_info{${labels}}`)).toBe(1);
    const response = await fetch(`${server.url}/v1/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ prompt: 'one two three', max_tokens: 8, temperature: 0 }),
    });
    expect(response.status).toBe(200);
    expect(await server.stop()).toBe(0);
  });
});
