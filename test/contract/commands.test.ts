import { Config } from '@oclif/core';
import { describe, expect, it } from 'vitest';
import { isConfigKey } from '../../src/cli/config-keys.js';
import { environmentName, type FlagRow } from '../../src/cli/flag-row.js';
import { SERVE_FLAGS } from '../../src/cli/flags.js';
import { REFUSED_FLAGS } from '../../src/cli/refused-flags.js';
import { ROOT } from '../helpers/cli.js';

const rows: readonly (readonly [string, FlagRow])[] = Object.entries(SERVE_FLAGS);

describe('commands, flags, aliases and environment names', () => {
  it('are those of the checked-in snapshot (vitest --update accepts a change)', async () => {
    const config = await Config.load(ROOT);
    const commands = config.commands
      .filter(({ pluginName }) => pluginName === 'fdq')
      .map(({ id, aliases, args, flags }) => ({
        command: id,
        aliases,
        args: Object.keys(args),
        flags: Object.values(flags).map((flag) =>
          [
            `--${flag.name}`,
            ...(flag.char === undefined ? [] : [`-${flag.char}`]),
            ...(flag.aliases ?? []).map((alias) => `--${alias}`),
            ...(flag.type === 'boolean' && flag.allowNo ? [`--no-${flag.name}`] : []),
            ...(flag.env === undefined ? [] : [flag.env]),
          ].join(' '),
        ),
      }));
    await expect(`${JSON.stringify(commands, null, 2)}\n`).toMatchFileSnapshot('./commands.snapshot.json');
  });
});

describe('the config file', () => {
  it('may set what any command has', async () => {
    const { commands } = await Config.load(ROOT);
    const flags = commands
      .filter(({ pluginName }) => pluginName === 'fdq')
      .flatMap((command) => Object.values(command.flags))
      .filter(({ name, env }) => env !== undefined && name !== 'config');
    expect(flags.map(({ name }) => name).filter((name) => !isConfigKey(name))).toEqual([]);
    expect(flags).not.toEqual([]);
  });
});

describe('the flag catalogue', () => {
  it.each(rows)('%s is well formed', (name, row) => {
    expect(name).toMatch(/^[a-z][a-z0-9-]*[a-z0-9]$/);
    expect(row.summary).toMatch(/[.)]$/);
    expect(row.kind === 'choice').toBe(row.options !== undefined);
    if (row.kind === 'choice' && row.default !== undefined) expect(row.options).toContain(row.default);
    if (row.negatable === true) expect(row.default).toBeDefined();
    expect(environmentName(name)).toMatch(/^FDQ_[A-Z0-9_]+$/);
  });

  it('spells nothing twice and refuses nothing it has', () => {
    const names = rows.flatMap(([name, { aliases = [] }]) => [name, ...aliases]);
    expect(new Set(names).size).toBe(names.length);
    expect(Object.keys(REFUSED_FLAGS).filter((name) => names.includes(name))).toEqual([]);
  });
});
