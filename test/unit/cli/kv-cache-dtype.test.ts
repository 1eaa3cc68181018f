import { describe, expect, it } from 'vitest';
import type { FlagRow } from '../../../src/cli/flag-row.js';
import { convertValue } from '../../../src/cli/flag-values.js';
import { MEMORY_FLAGS } from '../../../src/cli/flags.js';
import { parseKvCacheType } from '../../../src/quant/kv-cache-type.js';

const row: FlagRow = MEMORY_FLAGS['kv-cache-dtype'];
const read = (text: string): unknown => convertValue(row, '--kv-cache-dtype', text);

describe('--kv-cache-dtype', () => {
  it.each(['auto', 'float32', 'bfloat16', 'int8', 'fp8', 'int4'])('takes %s in any case', (name) => {
    expect(read(name)).toBe(name);
    expect(read(name.toUpperCase())).toBe(name);
  });

  it.each([
    ['bf16', 'bfloat16'],
    ['C16', 'bfloat16'],
    ['C8', 'int8'],
    ['c4', 'int4'],
    ['Cfp8', 'fp8'],
    ['fp8_e4m3', 'fp8'],
    ['float8_e4m3fn', 'fp8'],
  ])('takes %s for %s', (name, meant) => {
    expect(read(name)).toBe(meant);
  });

  it('reads every name as kv_cache_quant_type does', () => {
    for (const name of [...(row.options ?? []), ...Object.keys(row.spellings ?? {})]) {
      expect(parseKvCacheType(name, 'kv_cache_quant_type')).toBe(read(name));
    }
  });

  it.each(Object.keys(row.refused ?? {}))('refuses %s, and names what there is', (name) => {
    expect(() => read(name)).toThrow(`--kv-cache-dtype ${name} is not supported: `);
    expect(() => parseKvCacheType(name, 'kv_cache_quant_type')).toThrow(/kv_cache_quant_type/);
  });

  it.each(['int2', 'toString', '', 'q8_0'])('refuses %j with the list', (name) => {
    expect(() => read(name)).toThrow('one of auto, float32, bfloat16, int8, fp8, int4');
  });
});
