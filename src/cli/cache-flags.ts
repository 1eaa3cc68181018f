import type { FlagTable } from './flag-row.js';

/** Quantized weights kept between starts. */
export const CACHE_FLAGS = {
  cache: {
    kind: 'boolean',
    group: 'QUANTIZATION',
    negatable: true,
    default: 'true',
    summary: 'Keep weights that took long to quantize, and map them at the next start.',
  },
  'cache-dir': {
    kind: 'text',
    group: 'QUANTIZATION',
    summary: 'Folder they are kept in, which only this user may write to; default: $XDG_CACHE_HOME/fdq.',
  },
  'cache-max-size': {
    kind: 'size',
    group: 'QUANTIZATION',
    min: 0,
    default: '64GiB',
    summary: 'Size of all of them; the least recently used go first.',
  },
} as const satisfies FlagTable;
