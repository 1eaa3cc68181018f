import { UnsupportedError, UserError } from '../../errors.js';
import { quote } from '../quote.js';
import { describeJson, isJsonObject } from '../strict-json.js';

type JsonObject = Readonly<Record<string, unknown>>;

/** Reads the fields of a quantization config that decide what the stored numbers mean; messages name the field. */
export class ConfigFields {
  readonly #values: JsonObject;
  /** Where the fields are, e.g. `quantization_config.config_groups.group_0`. */
  readonly #path: string;
  /** `quant_method`, for messages. */
  readonly method: string;

  constructor(values: JsonObject, path: string, method: string) {
    this.#values = values;
    this.#path = path;
    this.method = method;
  }

  /** null is absent. */
  get(key: string): unknown {
    return this.#values[key] ?? undefined;
  }

  keys(): readonly string[] {
    return Object.keys(this.#values).filter((key) => this.get(key) !== undefined);
  }

  /** The value, which must be one of those that fdq loads; `absent` when the key is not there. */
  choose<T extends string | number | boolean>(key: string, supported: readonly T[], absent?: T): T {
    const value = this.get(key) ?? absent;
    const found = supported.find((one) => one === value);
    if (found !== undefined) return found;
    throw this.unsupported(key, supported.map((one) => JSON.stringify(one)).join(' or '));
  }

  boolean(key: string, absent: boolean): boolean {
    const value = this.get(key) ?? absent;
    if (typeof value === 'boolean') return value;
    throw this.#invalid(key, 'true or false');
  }

  /** @returns undefined when the key is absent. */
  text(key: string): string | undefined {
    const value = this.get(key);
    if (value === undefined || typeof value === 'string') return value;
    throw this.#invalid(key, 'a text');
  }

  /** Lower case, as methods spell their names in several ways. */
  lowerText(key: string, absent: string): string {
    return (this.text(key) ?? absent).toLowerCase();
  }

  texts(key: string): readonly string[] {
    const value = this.get(key) ?? [];
    if (Array.isArray(value) && value.every((entry): entry is string => typeof entry === 'string'))
      return value;
    throw this.#invalid(key, 'a list of names');
  }

  /** The fields of an object; undefined when the key is absent. */
  object(key: string): ConfigFields | undefined {
    const value = this.get(key);
    if (value === undefined) return undefined;
    if (!isJsonObject(value)) throw this.#invalid(key, 'an object');
    return new ConfigFields(value, `${this.#path}.${key}`, this.method);
  }

  /** Columns that share a scale: 0 for all of a row, else a multiple of 32. */
  groupSize(key: string, absent?: number): number {
    const value = this.get(key) ?? absent;
    if (value === -1) return 0;
    if (typeof value === 'number' && Number.isSafeInteger(value) && value > 0 && value % 32 === 0)
      return value;
    throw this.unsupported(key, '-1 or a multiple of 32');
  }

  unsupported(key: string, supported: string): UnsupportedError {
    const value = this.get(key);
    const found = value === undefined ? 'absent' : quoteValue(value);
    return new UnsupportedError(
      'unsupported_model',
      `${this.#path}.${key} is ${found}; fdq loads ${this.method} checkpoints with ${supported}.`,
      {
        param: `${this.#path}.${key}`,
        suggestions: [
          'Use the unquantized checkpoint this one was made from: fdq quantizes it while loading.',
        ],
      },
    );
  }

  #invalid(key: string, expected: string): UserError {
    return new UserError(
      'invalid_checkpoint',
      `Expected ${this.#path}.${key} to be ${expected} but it is ${describeJson(this.get(key))}.`,
      {
        param: `${this.#path}.${key}`,
        suggestions: ['Fetch the config files again from where the model was published.'],
      },
    );
  }
}

function quoteValue(value: unknown): string {
  return typeof value === 'string' ? quote(value) : JSON.stringify(value).slice(0, 80);
}
