import { Args } from '@oclif/core';
import { BaseCommand } from '../../cli/base-command.js';
import { CACHE_COMMAND_FLAGS, cacheDirOf } from '../../cli/cache-options.js';
import { toOclifFlags } from '../../cli/flag-row.js';
import { formatBytes } from '../../cli/render.js';
import { valuesOf, type ParsedFlags } from '../../cli/settings.js';
import { counted } from '../../counted.js';
import { UserError } from '../../errors.js';

interface ClearReport {
  readonly removed: readonly string[];
  readonly bytes: number;
}

export default class CacheClear extends BaseCommand {
  static override readonly summary = 'Remove quantized weights that fdq serve keeps.';

  static override readonly description =
    'Removes every entry, or the one whose key starts with KEY (see fdq cache ls). Running servers keep what they have mapped.';

  static override readonly examples = [
    { command: '<%= config.bin %> <%= command.id %>', description: 'Remove everything:' },
    { command: '<%= config.bin %> <%= command.id %> 3f9a02c4', description: 'Remove one entry:' },
  ];

  static override readonly args = {
    key: Args.string({ description: 'Beginning of the key of one entry.', ignoreStdin: true }),
  };

  static override readonly flags = toOclifFlags(CACHE_COMMAND_FLAGS);

  async run(): Promise<ClearReport> {
    let prefix = '';
    const settings = await this.parseSettings(CACHE_COMMAND_FLAGS, (_flags, args: ParsedFlags) => {
      prefix = (args['key'] as string | undefined) ?? '';
      return {};
    });
    const { CacheFolder } = await import('../../load/cache/cache-folder.js');
    const folder = await CacheFolder.find(cacheDirOf(valuesOf(settings), this.config.cacheDir));
    const entries = (await folder?.list()) ?? [];
    const chosen = entries.filter(({ key }) => key.startsWith(prefix));
    if (prefix !== '' && chosen.length !== 1) throw refuseKey(prefix, chosen.length);
    for (const { key } of chosen) await folder?.remove(key);
    if (prefix === '') await folder?.removeAbandoned();
    const bytes = chosen.reduce((sum, entry) => sum + entry.bytes, 0);
    this.log(`Removed ${counted(chosen.length, 'entry', 'entries')}, ${formatBytes(bytes)}.`);
    return { removed: chosen.map(({ key }) => key), bytes };
  }
}

function refuseKey(prefix: string, count: number): UserError {
  const found = count === 0 ? 'no entry has it' : `${count} entries start with it`;
  return new UserError('usage', `Expected the beginning of one key but received ${prefix}: ${found}.`, {
    param: 'key',
    suggestions: ['See the keys: fdq cache ls.'],
  });
}
