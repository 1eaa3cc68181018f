import { UnsupportedError, UserError } from '../../errors.js';
import type { StoredPart } from '../../graph/ir.js';
import { quote } from '../quote.js';
import type { SafetensorsDtype, TensorInfo } from '../safetensors.js';

/** Names of scale types as the repacker knows them. */
const SCALE_TYPES = { F32: 'float32', F16: 'float16', BF16: 'bfloat16', F8_E8M0: 'e8m0' } as const;

type ScaleType = (typeof SCALE_TYPES)[keyof typeof SCALE_TYPES];

const DAMAGED = ['Fetch the checkpoint again: its config and its tensors are not of the same version.'];

/** What a tensor of a module must be. */
export interface PartShape {
  readonly dtypes: readonly SafetensorsDtype[];
  /** Any of these. */
  readonly shapes: readonly (readonly number[])[];
}

/** The tensors of one module: `model.layers.0.mlp.up_proj.qweight` is `qweight` of `model.layers.0.mlp.up_proj`. */
export class StoredModule {
  readonly name: string;
  readonly #tensors = new Map<string, TensorInfo>();
  readonly #values = new Map<string, Uint8Array>();
  readonly #used = new Set<string>();

  constructor(name: string) {
    this.name = name;
  }

  add(suffix: string, tensor: TensorInfo): void {
    this.#tensors.set(suffix, tensor);
  }

  setValue(suffix: string, bytes: Uint8Array): void {
    this.#values.set(suffix, bytes);
  }

  /** Suffixes that were read: their tensors are parts of the weight. */
  get used(): ReadonlySet<string> {
    return this.#used;
  }

  peek(suffix: string): TensorInfo | undefined {
    return this.#tensors.get(suffix);
  }

  /** The tensor, which from then on belongs to the weight. */
  take(suffix: string): TensorInfo {
    const tensor = this.#tensors.get(suffix);
    if (tensor === undefined) {
      throw new UserError(
        'invalid_checkpoint',
        `Expected tensor ${quote(`${this.name}.${suffix}`)} beside ${this.#list()} but the checkpoint does not have it.`,
        {
          param: `${this.name}.${suffix}`,
          suggestions: ['Check that every shard is there and complete.', ...DAMAGED],
        },
      );
    }
    this.#used.add(suffix);
    return tensor;
  }

  takeIfThere(suffix: string): TensorInfo | undefined {
    return this.#tensors.has(suffix) ? this.take(suffix) : undefined;
  }

  /** The tensor, when its type and shape are as expected. */
  part(suffix: string, { dtypes, shapes }: PartShape): StoredPart & { readonly shape: readonly number[] } {
    const { name, dtype, shape, file, offset, byteLength } = this.take(suffix);
    if (!dtypes.includes(dtype)) {
      throw new UnsupportedError(
        'invalid_checkpoint',
        `Expected tensor ${quote(name)} to be of type ${dtypes.join(' or ')} but the checkpoint has ${dtype}.`,
        { param: name, suggestions: DAMAGED },
      );
    }
    if (!shapes.some((one) => one.join() === shape.join())) {
      const wanted = shapes.map((one) => `[${one.join(', ')}]`).join(' or ');
      throw new UserError(
        'invalid_checkpoint',
        `Expected tensor ${quote(name)} to have shape ${wanted} but the checkpoint has [${shape.join(', ')}].`,
        { param: name, suggestions: DAMAGED },
      );
    }
    return { name, file, offset, byteLength, shape };
  }

  /** `part` for scales, with their type. */
  scales(
    suffix: string,
    shapes: PartShape['shapes'],
    types: readonly (keyof typeof SCALE_TYPES)[] = ['F32', 'F16', 'BF16'],
  ): { readonly part: StoredPart; readonly type: ScaleType } {
    const { shape: _shape, ...part } = this.part(suffix, { dtypes: types, shapes });
    return { part, type: SCALE_TYPES[this.take(suffix).dtype as keyof typeof SCALE_TYPES] };
  }

  /** [n, k] of a weight with `perElement` codes in an element along each axis. */
  matrix(
    suffix: string,
    dtypes: readonly SafetensorsDtype[],
    [rows, columns]: readonly [rows: number, columns: number] = [1, 1],
  ): { readonly part: StoredPart; readonly size: readonly [number, number] } {
    const { shape } = this.take(suffix);
    const { shape: _shape, ...part } = this.part(suffix, { dtypes, shapes: [shape] });
    const [first = 0, second = 0] = shape;
    if (shape.length !== 2 || first < 1 || second < 1) {
      throw new UserError(
        'invalid_checkpoint',
        `Expected tensor ${quote(part.name)} to be a matrix but the checkpoint has [${shape.join(', ')}].`,
        { param: part.name, suggestions: DAMAGED },
      );
    }
    return { part, size: [first * rows, second * columns] };
  }

  /** The one number of a scalar tensor. @throws UserError `invalid_checkpoint` unless it is finite and positive. */
  positiveScalar(suffix: string): number {
    this.part(suffix, { dtypes: ['F32', 'F16', 'BF16'], shapes: [[], [1]] });
    const { name, dtype } = this.take(suffix);
    const value = widenScalar(this.#valueOf(suffix), dtype);
    if (Number.isFinite(value) && value > 0) return value;
    throw new UserError(
      'invalid_checkpoint',
      `Expected ${quote(name)} to be a positive number but it is ${value}.`,
      {
        param: name,
        suggestions: ['The checkpoint is damaged: get it again.'],
      },
    );
  }

  /** Whole numbers of an I32 or I64 tensor. */
  integers(suffix: string): readonly number[] {
    const bytes = this.#valueOf(suffix);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const size = this.take(suffix).dtype === 'I64' ? 8 : 4;
    return Array.from({ length: bytes.length / size }, (_, i) =>
      size === 8 ? Number(view.getBigInt64(8 * i, true)) : view.getInt32(4 * i, true),
    );
  }

  refuse(problem: string): UserError {
    return new UserError('invalid_checkpoint', `${quote(this.name)} ${problem}.`, {
      param: this.name,
      suggestions: DAMAGED,
    });
  }

  #valueOf(suffix: string): Uint8Array {
    return this.#values.get(suffix) ?? new Uint8Array();
  }

  #list(): string {
    return [...this.#tensors.keys()].map((suffix) => quote(suffix)).join(', ');
  }
}

function widenScalar(bytes: Uint8Array, dtype: SafetensorsDtype): number {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (dtype === 'F32') return view.getFloat32(0, true);
  const half = view.getUint16(0, true);
  if (dtype === 'F16') return widenHalf(half);
  const wide = new DataView(new ArrayBuffer(4));
  wide.setUint16(2, half, true);
  return wide.getFloat32(0, true);
}

/** IEEE binary16. */
function widenHalf(half: number): number {
  const sign = half & 0x8000 ? -1 : 1;
  const exponent = (half >> 10) & 0x1f;
  const fraction = half & 0x3ff;
  if (exponent === 0x1f) return fraction === 0 ? sign * Infinity : NaN;
  return exponent === 0 ? sign * fraction * 2 ** -24 : sign * (1024 + fraction) * 2 ** (exponent - 25);
}
