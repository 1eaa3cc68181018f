/** Factors of the units a number may be written with, lower case; '' where none needs to be written. */
export type Units = Readonly<Record<string, number>>;

export const BYTE_UNITS: Units = {
  '': 1,
  b: 1,
  kb: 1e3,
  mb: 1e6,
  gb: 1e9,
  k: 1024,
  m: 1024 ** 2,
  g: 1024 ** 3,
  kib: 1024,
  mib: 1024 ** 2,
  gib: 1024 ** 3,
};

const NUMBER = /^([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*([a-zµ%/]*)$/i;

/** `400MiB` or `-5%` as a number; undefined where the text is no number or its unit is not in the table. */
export function parseQuantity(text: string, units: Units): number | undefined {
  const [, digits, unit = ''] = NUMBER.exec(text) ?? [];
  const key = unit.toLowerCase();
  if (digits === undefined || !Object.hasOwn(units, key)) return undefined;
  return Number(digits) * (units[key] ?? 1);
}

export const COMPARISONS: Readonly<Record<string, (a: number, b: number) => boolean>> = {
  '<': (a, b) => a < b,
  '<=': (a, b) => a <= b,
  '>': (a, b) => a > b,
  '>=': (a, b) => a >= b,
  '=': (a, b) => a === b,
  '==': (a, b) => a === b,
  '!=': (a, b) => a !== b,
};
