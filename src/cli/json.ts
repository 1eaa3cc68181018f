/** JSON of any result: big integers and non-finite numbers, which JSON lacks, become strings. */
export function toJson(value: unknown, indent = 2): string {
  return JSON.stringify(
    value,
    (_key, item: unknown) => {
      if (typeof item === 'bigint') return item.toString();
      return typeof item === 'number' && !Number.isFinite(item) ? String(item) : item;
    },
    indent,
  );
}
