import { UnsupportedError, UserError } from '../errors.js';

/** Reads typed values from a parsed config.json; null counts as absent, as it does in transformers. */
export class ConfigReader {
  readonly #values: Readonly<Record<string, unknown>>;
  readonly #path: string;

  /** `path` prefixes the keys in messages, e.g. `rope_scaling.`. */
  constructor(values: Readonly<Record<string, unknown>>, path = '') {
    this.#values = values;
    this.#path = path;
  }

  get(key: string): unknown {
    return Object.hasOwn(this.#values, key) ? (this.#values[key] ?? undefined) : undefined;
  }

  has(key: string): boolean {
    return this.get(key) !== undefined;
  }

  /** A whole number from 1 to `max`. */
  size(key: string, fallback?: number, max = 2 ** 31 - 1): number {
    const isSize = (value: unknown): value is number =>
      Number.isSafeInteger(value) && (value as number) >= 1 && (value as number) <= max;
    return this.#read(key, `a whole number from 1 to ${max}`, isSize, fallback);
  }

  positive(key: string, fallback?: number): number {
    const isPositive = (value: unknown): value is number => Number.isFinite(value) && (value as number) > 0;
    return this.#read(key, 'a positive number', isPositive, fallback);
  }

  boolean(key: string, fallback: boolean): boolean {
    return this.#read(key, 'true or false', (value) => typeof value === 'boolean', fallback);
  }

  text(key: string, fallback?: string): string {
    return this.#read(key, 'a text', (value) => typeof value === 'string', fallback);
  }

  /** A list of texts, absent when the key is. */
  texts(key: string): readonly string[] | undefined {
    if (!this.has(key)) return undefined;
    const isTexts = (value: unknown): value is string[] =>
      Array.isArray(value) && value.every((item) => typeof item === 'string');
    return this.#read(key, 'a list of texts', isTexts);
  }

  /** The object under a key, empty when absent. */
  object(key: string): ConfigReader {
    const isObject = (value: unknown): value is Record<string, unknown> =>
      typeof value === 'object' && value !== null && !Array.isArray(value);
    return new ConfigReader(this.#read(key, 'an object', isObject, {}), `${this.#path}${key}.`);
  }

  keys(): readonly string[] {
    return Object.keys(this.#values);
  }

  /** The value is impossible. */
  invalid(key: string, expected: string): UserError {
    const name = `${this.#path}${key}`;
    return new UserError(
      'invalid_checkpoint',
      `Expected ${name} in config.json to be ${expected} but received ${describe(this.get(key))}.`,
      { param: name, suggestions: ['Compare config.json with the one the model was published with.'] },
    );
  }

  /** The value is meaningful, but not to fdq. */
  unsupported(key: string, supported: string): UnsupportedError {
    const name = `${this.#path}${key}`;
    return new UnsupportedError(
      'unsupported_model',
      `Expected ${name} in config.json to be ${supported} but received ${describe(this.get(key))}.`,
      { param: name, suggestions: [`fdq supports ${supported} for ${name}; choose a model without this setting.`] },
    );
  }

  #read<T>(key: string, expected: string, accepts: (value: unknown) => value is T, fallback?: T): T {
    const value = this.get(key) ?? fallback;
    if (!accepts(value)) throw this.invalid(key, expected);
    return value;
  }
}

function describe(value: unknown): string {
  if (value === undefined) return 'nothing';
  const text = JSON.stringify(value);
  return text.length <= 100 ? text : `${text.slice(0, 97)}...`;
}
