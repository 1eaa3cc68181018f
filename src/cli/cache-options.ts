import type { FlagTable, FlagValues } from './flag-row.js';
import { CACHE_FLAGS } from './cache-flags.js';
import { GLOBAL_FLAGS } from './flags.js';

/** Where quantized weights are kept between starts. */
export interface CacheOptions {
  /** Cache folder of fdq. */
  readonly dir: string;
  /** Of all entries together. */
  readonly maxBytes: number;
  /** Loading that spent less on its weights is not worth an entry. */
  readonly minSeconds: number;
  /** The user named the folder: failing to use it is an error. */
  readonly isRequired: boolean;
}

/** Below this a start from the cache saves too little to fill a disk for: see docs/convert.md. */
const MIN_SECONDS = 5;

/** Flags of `fdq cache ...`. */
export const CACHE_COMMAND_FLAGS = {
  'cache-dir': {
    ...CACHE_FLAGS['cache-dir'],
    group: 'CACHE',
    summary: 'Folder of the cache; default: $XDG_CACHE_HOME/fdq.',
  },
  'no-color': GLOBAL_FLAGS['no-color'],
  config: GLOBAL_FLAGS.config,
} as const satisfies FlagTable;

/** The folder named, else the one of this user. */
export function cacheDirOf(
  values: Pick<FlagValues<typeof CACHE_FLAGS>, 'cache-dir'>,
  userCacheDir: string,
): string {
  return values['cache-dir'] ?? userCacheDir;
}

/** Undefined with `--no-cache`. */
export function cacheOptions(
  values: FlagValues<typeof CACHE_FLAGS>,
  userCacheDir: string,
): CacheOptions | undefined {
  if (!values.cache) return undefined;
  return {
    dir: cacheDirOf(values, userCacheDir),
    maxBytes: values['cache-max-size'],
    minSeconds: MIN_SECONDS,
    isRequired: values['cache-dir'] !== undefined,
  };
}
