import { counted } from '../../counted.js';
import { BaseCommand } from '../../cli/base-command.js';
import { CACHE_COMMAND_FLAGS, cacheDirOf } from '../../cli/cache-options.js';
import { toOclifFlags } from '../../cli/flag-row.js';
import { formatBytes, printable } from '../../cli/render.js';
import { valuesOf } from '../../cli/settings.js';

interface ListedEntry {
  readonly key: string;
  readonly model: string | null;
  readonly bytes: number;
  readonly usedAt: string;
  readonly problem?: string;
}

interface CacheListing {
  /** Null when there is no cache yet. */
  readonly dir: string | null;
  readonly entries: readonly ListedEntry[];
  readonly totalBytes: number;
}

export default class CacheLs extends BaseCommand {
  static override readonly summary = 'List the quantized weights that fdq serve keeps.';

  static override readonly examples = [
    { command: '<%= config.bin %> <%= command.id %>', description: 'The least recently used first:' },
    { command: '<%= config.bin %> <%= command.id %> --json', description: 'The same for programs:' },
  ];

  static override readonly flags = toOclifFlags(CACHE_COMMAND_FLAGS);

  async run(): Promise<CacheListing> {
    const values = valuesOf(await this.parseSettings(CACHE_COMMAND_FLAGS));
    const { CacheFolder } = await import('../../load/cache/cache-folder.js');
    const folder = await CacheFolder.find(cacheDirOf(values, this.config.cacheDir));
    const entries = ((await folder?.list()) ?? []).map(({ key, bytes, usedAt, manifest, problem }) => ({
      key,
      model: manifest?.model ?? null,
      bytes,
      usedAt: usedAt.toISOString(),
      ...(problem === undefined ? {} : { problem }),
    }));
    const totalBytes = entries.reduce((sum, { bytes }) => sum + bytes, 0);
    for (const entry of entries) this.log(describe(entry));
    this.log(
      `${counted(entries.length, 'entry', 'entries')}, ${formatBytes(totalBytes)}${folder ? ` in ${folder.dir}` : ''}`,
    );
    return { dir: folder?.dir ?? null, entries, totalBytes };
  }
}

function describe({ key, model, bytes, usedAt, problem }: ListedEntry): string {
  const what = problem === undefined ? printable(model ?? '') : `damaged: ${printable(problem)}`;
  return `${key.slice(0, 12)}  ${formatBytes(bytes).padStart(10)}  ${usedAt.slice(0, 16)}  ${what}`;
}
