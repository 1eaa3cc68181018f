import { UserError } from '../../errors.js';
import { KV_BLOCK_SIZE } from '../../runtime/kv-layout.js';
import type { SpeedCase, SpeedOptions } from './options.js';

/**
 * Every combination of -d, -b, -p and -n, those of one depth together: they share what is in the cache.
 * @throws UserError `usage` for lists that leave nothing to measure and depths that are no whole KV blocks
 */
export function expandCases(
  options: Pick<SpeedOptions, 'promptTokens' | 'steps' | 'depths' | 'sequences'>,
): readonly SpeedCase[] {
  const cases: SpeedCase[] = [];
  for (const depth of new Set(options.depths)) {
    checkDepth(depth);
    for (const sequences of new Set(options.sequences)) {
      for (const promptTokens of new Set(options.promptTokens)) {
        for (const steps of new Set(options.steps)) {
          if (promptTokens > 0 || steps > 0) cases.push({ promptTokens, steps, depth, sequences });
        }
      }
    }
  }
  if (cases.length > 0) return cases;
  throw new UserError('usage', 'Expected something to measure but both -p and -n are 0.', {
    param: 'n-prompt',
    suggestions: ['Measure prompt speed: -p 512.', 'Measure decode speed: -n 128.'],
  });
}

function checkDepth(depth: number): void {
  if (depth % KV_BLOCK_SIZE === 0) return;
  const below = depth - (depth % KV_BLOCK_SIZE);
  throw new UserError(
    'usage',
    `Expected -d to be multiples of ${KV_BLOCK_SIZE}, which a block of the KV cache holds, but received ${depth}.`,
    { param: 'n-depth', suggestions: [`Write ${below} or ${below + KV_BLOCK_SIZE}.`] },
  );
}

/** `p=512 n=128 d=0 b=8` */
export function caseName({ promptTokens, steps, depth, sequences }: SpeedCase): string {
  return `p=${promptTokens} n=${steps} d=${depth} b=${sequences}`;
}

/** Positions of the longest sequence of a case: its prompt and one token, or one token and what is generated. */
export function longestSequence({ promptTokens, steps, depth }: SpeedCase): number {
  return depth + Math.max(promptTokens + 1, steps + 2);
}

/**
 * KV blocks that a case takes: the prefixes, and what comes after them twice, so that new tokens take the blocks of
 * the last repetition and never those of a prefix.
 */
export function blocksOf({ promptTokens, steps, depth, sequences }: SpeedCase): number {
  const blocks = (tokens: number): number => Math.ceil(tokens / KV_BLOCK_SIZE);
  return sequences * blocks(depth) + 2 * (blocks(promptTokens + 1) + sequences * blocks(steps + 2));
}
