import { counted } from '../counted.js';
import { UserError } from '../errors.js';
import { openLocalWeights } from './model-source.js';
import type { WeightReader } from './model-source.js';
import { printablePath, quote, quotePath } from './quote.js';
import { describeJson, isJsonObject, parseStrictJsonObject } from './strict-json.js';
import type { FileIdentity } from './weight-file.js';

/** Bits per element of every dtype of the format (safetensors 0.7). */
const DTYPE_BITS = {
  BOOL: 8,
  F4: 4,
  F6_E2M3: 6,
  F6_E3M2: 6,
  U8: 8,
  I8: 8,
  F8_E5M2: 8,
  F8_E4M3: 8,
  F8_E8M0: 8,
  F8_E4M3FNUZ: 8,
  F8_E5M2FNUZ: 8,
  I16: 16,
  U16: 16,
  F16: 16,
  BF16: 16,
  I32: 32,
  U32: 32,
  F32: 32,
  C64: 64,
  F64: 64,
  I64: 64,
  U64: 64,
} as const;

export type SafetensorsDtype = keyof typeof DTYPE_BITS;

/** One tensor as it lies in a file: `byteLength` bytes at `offset` of `file`, proven to be inside the file. */
export interface TensorInfo {
  readonly name: string;
  readonly dtype: SafetensorsDtype;
  readonly shape: readonly number[];
  /** Absolute, symbolic links resolved. */
  readonly file: string;
  /** Absolute byte offset in the file. */
  readonly offset: number;
  readonly byteLength: number;
}

export interface SafetensorsHeader {
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  readonly metadata: ReadonlyMap<string, string>;
  readonly file: FileIdentity;
}

/** The reference implementation's limit. */
const MAX_HEADER_BYTES = 100_000_000;
const LENGTH_BYTES = 8;
const OPEN_BRACE = 0x7b;
const MAX_TENSORS = 1 << 18;
const MAX_NAME_LENGTH = 1024;
const MAX_RANK = 8;
/** Header object, tensor object, shape list; metadata is no deeper. */
const MAX_DEPTH = 3;
const MAX_SAFE = BigInt(Number.MAX_SAFE_INTEGER);
const TENSOR_KEYS: ReadonlySet<string> = new Set(['dtype', 'shape', 'data_offsets']);

/** A tensor before its place in the file is known. */
interface Entry {
  readonly name: string;
  readonly dtype: SafetensorsDtype;
  readonly shape: readonly number[];
  /** Relative to the end of the header. */
  readonly begin: number;
  readonly end: number;
}

function refuse(path: string, problem: string, suggestion?: string): UserError {
  return new UserError(
    'invalid_checkpoint',
    `Not a valid safetensors file: ${quotePath(path)}: ${problem}.`,
    {
      param: path,
      suggestions: [suggestion ?? 'Fetch the file again; it is damaged or was made by a broken tool.'],
    },
  );
}

/** The header's bytes. Nothing is allocated before the claimed length is compared with the file's size. */
async function readHeaderBytes(reader: WeightReader): Promise<Uint8Array> {
  const { label: path } = reader;
  const { size } = reader.file;
  const prefix = Buffer.alloc(LENGTH_BYTES);
  if (size < LENGTH_BYTES || !(await reader.read(prefix, 0))) {
    throw refuse(
      path,
      `it has ${counted(size, 'byte')}, and the header's length alone takes ${LENGTH_BYTES}`,
    );
  }
  if (prefix.toString('latin1') === 'version ') {
    throw refuse(path, 'it is a Git LFS pointer, not the weights', 'Run `git lfs pull` in the model folder.');
  }
  const length = prefix.readBigUInt64LE();
  if (length > BigInt(MAX_HEADER_BYTES)) {
    throw refuse(path, `the header claims ${length} bytes, more than the allowed ${MAX_HEADER_BYTES}`);
  }
  if (length > BigInt(size - LENGTH_BYTES)) {
    throw refuse(path, `the header claims ${length} bytes, but only ${size - LENGTH_BYTES} follow`);
  }
  const header = Buffer.alloc(Number(length));
  if (!(await reader.read(header, LENGTH_BYTES))) throw refuse(path, 'it was truncated while being read');
  if (header[0] !== OPEN_BRACE) throw refuse(path, 'the header does not start with "{"');
  return header;
}

function parseMetadata(path: string, value: unknown): ReadonlyMap<string, string> {
  if (value === undefined) return new Map();
  if (!isJsonObject(value)) throw refuse(path, `"__metadata__" is ${describeJson(value)}, not an object`);
  const metadata = new Map<string, string>();
  for (const [key, text] of Object.entries(value)) {
    if (typeof text !== 'string') {
      throw refuse(path, `the metadata ${quote(key)} is ${describeJson(text)}, not a string`);
    }
    metadata.set(key, text);
  }
  return metadata;
}

function parseSize(path: string, where: string, value: unknown): number {
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 0) {
    throw refuse(path, `${where} is ${describeJson(value)}, not an integer from 0 to 2^53 - 1`);
  }
  return value;
}

function parseName(path: string, name: string): string {
  if (name.length > MAX_NAME_LENGTH) {
    throw refuse(path, `the tensor name ${quote(name)} is longer than ${MAX_NAME_LENGTH} characters`);
  }
  if (/\p{Surrogate}/u.test(name)) throw refuse(path, `the tensor name ${quote(name)} is not valid Unicode`);
  return name;
}

function parseEntry(path: string, name: string, value: unknown): Entry {
  const label = `tensor ${quote(parseName(path, name))}`;
  if (!isJsonObject(value)) throw refuse(path, `${label} is ${describeJson(value)}, not an object`);
  const unknownKey = Object.keys(value).find((key) => !TENSOR_KEYS.has(key));
  if (unknownKey !== undefined) throw refuse(path, `${label} has the unknown key ${quote(unknownKey)}`);

  const { dtype, shape, data_offsets: offsets } = value;
  if (typeof dtype !== 'string' || !Object.hasOwn(DTYPE_BITS, dtype)) {
    throw refuse(
      path,
      `${label}: dtype is ${describeJson(dtype)}, not one of ${Object.keys(DTYPE_BITS).join(', ')}`,
    );
  }
  if (!Array.isArray(shape)) throw refuse(path, `${label}: shape is ${describeJson(shape)}, not a list`);
  if (shape.length > MAX_RANK)
    throw refuse(path, `${label}: shape has ${shape.length} dimensions, not ${MAX_RANK} or fewer`);
  if (!Array.isArray(offsets) || offsets.length !== 2) {
    throw refuse(path, `${label}: data_offsets is ${describeJson(offsets)}, not a pair`);
  }
  const sizes = shape.map((size: unknown, axis) => parseSize(path, `${label}: shape[${axis}]`, size));
  const begin = parseSize(path, `${label}: data_offsets[0]`, offsets[0]);
  const end = parseSize(path, `${label}: data_offsets[1]`, offsets[1]);
  if (begin > end) throw refuse(path, `${label}: data_offsets begin at ${begin} and end before, at ${end}`);
  return { name, dtype: dtype as SafetensorsDtype, shape: sizes, begin, end };
}

/** Bytes that the shape and dtype ask for. */
function computeByteLength(path: string, { name, dtype, shape }: Entry): bigint {
  // A zero anywhere makes the product 0, yet [2^52, 2^52, 0] must not reach code that multiplies the first two.
  const overflowProof = shape.reduce((product, size) => product * BigInt(size === 0 ? 1 : size), 1n);
  if (overflowProof > MAX_SAFE)
    throw refuse(path, `tensor ${quote(name)}: shape [${shape.join(', ')}] overflows`);
  const bits = (shape.includes(0) ? 0n : overflowProof) * BigInt(DTYPE_BITS[dtype]);
  if (bits % 8n !== 0n) {
    throw refuse(path, `tensor ${quote(name)}: ${dtype} [${shape.join(', ')}] does not end at a whole byte`);
  }
  return bits / 8n;
}

/** Every byte after the header belongs to exactly one tensor: no overlap, no hole, nothing behind the last. */
function checkLayout(path: string, entries: readonly Entry[], dataBytes: number): void {
  let position = 0;
  for (const entry of entries.toSorted((a, b) => a.begin - b.begin || a.end - b.end)) {
    const label = `tensor ${quote(entry.name)}`;
    if (entry.end > dataBytes) {
      throw refuse(
        path,
        `${label} ends at byte ${entry.end} of the data, but the file has ${dataBytes}`,
        'The file is truncated or still being written: fetch it again.',
      );
    }
    if (entry.begin < position) throw refuse(path, `${label} overlaps the tensor before it`);
    if (entry.begin > position) {
      throw refuse(
        path,
        `${label} begins at ${entry.begin}, leaving a hole of ${counted(entry.begin - position, 'byte')}`,
      );
    }
    const expected = computeByteLength(path, entry);
    if (BigInt(entry.end - entry.begin) !== expected) {
      throw refuse(
        path,
        `${label} takes ${entry.end - entry.begin} bytes, but ${entry.dtype} [${entry.shape.join(', ')}] needs ${expected}`,
      );
    }
    position = entry.end;
  }
  if (position !== dataBytes) {
    throw refuse(
      path,
      `${counted(dataBytes - position, 'byte at the end of the file belongs', 'bytes at the end of the file belong')} to no tensor`,
    );
  }
}

/**
 * Reads and checks the header of a safetensors file; no tensor data is read.
 *
 * Format and checks: https://github.com/huggingface/safetensors (README and `SafeTensors::read_metadata`), plus caps on
 * name length, tensor count and rank, refusal of duplicate and unknown keys, and numbers that a double cannot hold.
 *
 * @throws UserError `invalid_checkpoint` naming the file and, where there is one, the tensor.
 */
export async function readSafetensorsHeader(path: string): Promise<SafetensorsHeader> {
  const reader = await openLocalWeights(path);
  try {
    return await readHeader(reader);
  } finally {
    await reader.close();
  }
}

/** As `readSafetensorsHeader`, of a file that is open. */
export async function readHeader(reader: WeightReader): Promise<SafetensorsHeader> {
  const { label: path, file } = reader;
  const header = await readHeaderBytes(reader);
  const json = parseStrictJsonObject(header, {
    what: printablePath(path),
    maxDepth: MAX_DEPTH,
    integersOnly: true,
  });
  const { __metadata__: rawMetadata, ...rawTensors } = json;
  const metadata = parseMetadata(path, rawMetadata);

  const names = Object.keys(rawTensors);
  if (names.length > MAX_TENSORS) {
    throw refuse(path, `it has ${names.length} tensors, more than the allowed ${MAX_TENSORS}`);
  }
  const dataStart = LENGTH_BYTES + header.length;
  const entries = names.map((name) => parseEntry(path, name, rawTensors[name]));
  checkLayout(path, entries, file.size - dataStart);

  const tensors = new Map(
    entries.map(({ name, dtype, shape, begin, end }) => [
      name,
      { name, dtype, shape, file: file.path, offset: dataStart + begin, byteLength: end - begin },
    ]),
  );
  return { tensors, metadata, file };
}
