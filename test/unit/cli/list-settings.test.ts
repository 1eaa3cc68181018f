import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { listFlags } from '../../../src/cli/config-keys.js';
import { environmentName, type FlagRow, type FlagTable } from '../../../src/cli/flag-row.js';
import { BENCH_SERVE_FLAGS } from '../../../src/cli/bench-serve-flags.js';
import { resolveSettings, type ParsedFlags } from '../../../src/cli/settings.js';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'fdq-lists-'));
});
afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

interface Given {
  readonly flags?: ParsedFlags;
  readonly environment?: Readonly<Record<string, string>>;
  /** Of a config file that is JSON. */
  readonly file?: unknown;
}

function valueOf(name: string, row: FlagRow, { flags = {}, environment = {}, file }: Given): unknown {
  const table: FlagTable = { [name]: row };
  const config = path.join(folder, 'config.yaml');
  rmSync(config, { force: true });
  if (file !== undefined) writeFileSync(config, JSON.stringify({ [name]: file }));
  return resolveSettings(table, { flags, environment, configDir: folder })[name]?.value;
}

const lists = listFlags().filter(([, row]) => row.kind === 'list');
const settings = lists.filter(([, row]) => row.commandLineOnly !== true);

describe('a list', () => {
  it('is what a model has names, a server has keys and a test has limits as', () => {
    const names = settings.map(([name]) => name);
    expect(names).toEqual(expect.arrayContaining(['served-model-name', 'api-key', 'header', 'goodput']));
  });

  it.each(settings)(
    '%s has the same items as words, as one text, in the environment and in a file',
    (name, row) => {
      const between = row.separator === 'lines' ? '\n' : ',';
      const together = `a:1${between}b=2`;
      const expected = ['a:1', 'b=2'];
      const given: readonly Given[] = [
        { flags: { [name]: expected } },
        { flags: { [name]: [together] } },
        { flags: { [name]: [`a:1${between} b=2 `] } },
        { environment: { [environmentName(name)]: together } },
        { environment: { [environmentName(name)]: ` a:1${between} b=2` } },
        { file: expected },
        { file: together },
        { file: [together] },
      ];
      expect(given.map((each) => valueOf(name, row, each))).toEqual(given.map(() => expected));
    },
  );

  it.each(settings.filter(([, row]) => row.secret !== true))(
    '%s refuses an item that is empty, wherever it stands',
    (name, row) => {
      const message = 'but received an empty one';
      for (const text of ['', 'a,,b', 'a,', ',']) {
        expect(() => valueOf(name, row, { flags: { [name]: [text] } })).toThrow(message);
        expect(() => valueOf(name, row, { file: text })).toThrow(message);
      }
      expect(() => valueOf(name, row, { environment: { [environmentName(name)]: 'a,,b' } })).toThrow(message);
      expect(valueOf(name, row, { environment: { [environmentName(name)]: '' } })).toEqual(
        row.default === undefined ? undefined : [row.default],
      );
    },
  );

  it.each(lists.filter(([, row]) => row.commandLineOnly === true))(
    '%s, which only the command line has, is taken word by word',
    (name, row) => {
      expect(valueOf(name, row, { flags: { [name]: ['a,b', 'c\nd'] } })).toEqual(['a,b', 'c\nd']);
    },
  );
});

describe('items with commas of their own', () => {
  it('are headers, from every source', () => {
    const row = BENCH_SERVE_FLAGS.header;
    const expected = ['accept=a,b', 'x=1'];
    const sources: readonly Given[] = [
      { flags: { header: expected } },
      { environment: { FDQ_HEADER: 'accept=a,b\nx=1\n' } },
      { file: expected },
    ];
    expect(sources.map((each) => valueOf('header', row, each))).toEqual(sources.map(() => expected));
  });

  it('are objects and files of schemes, from every source', () => {
    const [name, row] = settings.find(([each]) => each === 'quantization') ?? [];
    if (name === undefined || row === undefined) throw new Error('no list of schemes');
    for (const item of ['{"linear":"wint8","ignore":["a","b"]}', '@a,b.json']) {
      const sources: readonly Given[] = [
        { flags: { [name]: [item] } },
        { environment: { FDQ_QUANTIZATION: item } },
        { file: [item] },
      ];
      expect(sources.map((each) => valueOf(name, row, each))).toEqual(sources.map(() => [item]));
    }
  });
});
