import os from 'node:os';
import process from 'node:process';
import { BaseCommand } from '../../cli/base-command.js';
import { CACHE_COMMAND_FLAGS, cacheDirOf } from '../../cli/cache-options.js';
import { toOclifFlags } from '../../cli/flag-row.js';
import { printable } from '../../cli/render.js';
import { valuesOf } from '../../cli/settings.js';
import { counted } from '../../counted.js';
import { UserError } from '../../errors.js';

interface CheckedEntry {
  readonly key: string;
  readonly problem?: string;
}

export default class CacheVerify extends BaseCommand {
  static override readonly summary = 'Compare every byte of the cache with its digests.';

  static override readonly description =
    'fdq serve does the same with the entry it is about to use, and quantizes again where it is damaged.\n\nExit codes: 0 all entries are whole, 1 failed, 2 wrong usage or a cache folder that cannot be trusted, 4 an entry is damaged.';

  static override readonly examples = [
    { command: '<%= config.bin %> <%= command.id %>', description: 'Check all entries:' },
  ];

  static override readonly flags = toOclifFlags(CACHE_COMMAND_FLAGS);

  async run(): Promise<{ readonly entries: readonly CheckedEntry[] }> {
    const values = valuesOf(await this.parseSettings(CACHE_COMMAND_FLAGS));
    const { CacheFolder } = await import('../../load/cache/cache-folder.js');
    const folder = await CacheFolder.find(cacheDirOf(values, this.config.cacheDir));
    const threads = os.availableParallelism();
    const entries: CheckedEntry[] = [];
    for (const { key } of (await folder?.list()) ?? []) {
      const problem = await folder?.findProblem(key, threads);
      entries.push({ key, ...(problem === undefined ? {} : { problem }) });
      if (!this.jsonEnabled())
        process.stdout.write(`${key.slice(0, 12)}  ${printable(problem ?? 'whole')}\n`);
    }
    const damaged = entries.filter(({ problem }) => problem !== undefined);
    if (damaged.length > 0) throw describeDamage(damaged);
    return { entries };
  }
}

function describeDamage(damaged: readonly CheckedEntry[]): UserError {
  const list = damaged
    .map(({ key, problem }) => `${key.slice(0, 12)}: ${printable(problem ?? '')}`)
    .join('; ');
  return new UserError(
    'check_failed',
    `${counted(damaged.length, 'entry of the cache is', 'entries of the cache are')} damaged: ${list}`,
    {
      param: damaged[0]?.key ?? '',
      suggestions: damaged.map(({ key }) => `Remove it: fdq cache clear ${key.slice(0, 12)}`),
    },
  );
}
