import { readFile } from 'node:fs/promises';
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import type { HubFixture } from './hub-fixture.js';

export const WEIGHTS = 'model.safetensors';
export const CUT_AFTER = 150_000;
export const SERVED = [
  'chat_template.jinja',
  'config.json',
  'generation_config.json',
  WEIGHTS,
  'tokenizer.json',
  'tokenizer_config.json',
];

export async function hashWeights({ source }: HubFixture): Promise<string> {
  return createHash('sha256')
    .update(await readFile(join(source, WEIGHTS)))
    .digest('hex');
}

/** Bytes of the weights that each request got. */
export function getWeightTransfers({
  server,
}: HubFixture): readonly (readonly [string | undefined, number])[] {
  return server.requests
    .filter((request) => request.server === 'cdn' && request.path.includes(WEIGHTS))
    .map(({ range, bytesSent }) => [range, bytesSent]);
}
