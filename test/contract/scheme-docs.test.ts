import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { SCHEMES, SCHEME_FAMILIES } from '../../src/quant/registry.js';

const SIZE = 4096;

interface Row {
  readonly names: readonly string[];
  readonly aliases: string;
  readonly bits: string;
}

/** `:g64` after `wint4:g32` means `wint4:g64`. */
function spellOut(cell: string): readonly string[] {
  const names = [...cell.matchAll(/`([^`]+)`/g)].map(([, name = '']) => name);
  const family = names[0]?.split(':')[0] ?? '';
  return names.map((name) => (name.startsWith(':') ? `${family}${name}` : name));
}

function readTable(): readonly Row[] {
  const text = readFileSync(new URL('../../docs/quantization.md', import.meta.url), 'utf8');
  const section = text.slice(text.indexOf('## Schemes'), text.indexOf('## ', text.indexOf('## Schemes') + 3));
  const lines = section.split('\n').filter((line) => line.startsWith('| `'));
  return lines.map((line) => {
    const [, scheme = '', aliases = '', , , , bits = ''] = line.split('|').map((cell) => cell.trim());
    return { names: spellOut(scheme), aliases, bits };
  });
}

describe('docs/quantization.md', () => {
  const table = readTable();
  const documented = table.flatMap(({ names, bits }) =>
    names.map((name, index) => [name, bits.split(', ')[index] ?? bits] as const),
  );

  it('lists every scheme once', () => {
    expect(documented.map(([name]) => name).sort()).toEqual(SCHEMES.map(({ name }) => name).sort());
  });

  it('lists every alias of every family beside it', () => {
    for (const { name, variants } of SCHEME_FAMILIES) {
      const row = table.find(({ names }) => names[0] === name);
      const aliases = variants[0].aliases.map((alias) => `\`${alias}\``).join(', ');
      expect([name, row?.aliases]).toEqual([name, aliases === '' ? 'none' : aliases]);
    }
  });

  it.each(documented.filter(([name]) => name !== 'none'))('counts the bits of %s', (name, bits) => {
    const scheme = SCHEMES.find((candidate) => candidate.name === name);
    const bytes = scheme?.bytes({ dataType: 'bfloat16', shape: [SIZE, SIZE] }) ?? NaN;
    expect(bits).toBe(String(Math.round((100 * 8 * bytes) / SIZE ** 2) / 100));
  });
});
