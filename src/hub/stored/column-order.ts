import type { StoredModule } from './stored-module.js';

/**
 * Order of the columns in which groups of `groupK` lie one after the other, from the group of each column; undefined
 * when they already do. GPTQ's act-order quantizes columns by importance, so a group's columns are anywhere.
 * @throws UserError `invalid_checkpoint` naming the module, for a group out of range or of the wrong size.
 */
export function parseColumnOrder(
  module: StoredModule,
  suffix: string,
  { k, groupK }: { readonly k: number; readonly groupK: number },
): Int32Array | undefined {
  module.part(suffix, { dtypes: ['I32', 'I64'], shapes: [[k]] });
  const groups = module.integers(suffix);
  const size = groupK === 0 ? k : groupK;
  if (groups.every((group, column) => group === Math.floor(column / size))) return undefined;
  const count = Math.ceil(k / size);
  const next = Array.from({ length: count }, (_, group) => group * size);
  const order = new Int32Array(k);
  for (const [column, group] of groups.entries()) {
    if (group < 0 || group >= count) {
      throw module.refuse(`has ${suffix}[${column}] = ${group}, which is not one of its ${count} groups`);
    }
    const place = next[group] as number;
    if (place >= Math.min((group + 1) * size, k)) {
      throw module.refuse(`has more columns in group ${group} of ${suffix} than the ${size} of a group`);
    }
    order[place] = column;
    next[group] = place + 1;
  }
  return order;
}
