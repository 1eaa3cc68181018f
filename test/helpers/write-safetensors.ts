import { writeFile } from 'node:fs/promises';

export interface TensorSpec {
  readonly dtype: string;
  readonly shape: readonly number[];
  /** Zeros when left out. */
  readonly data?: Uint8Array;
}

const BYTES_PER_ELEMENT: Readonly<Record<string, number>> = {
  F64: 8,
  I64: 8,
  F32: 4,
  I32: 4,
  F16: 2,
  BF16: 2,
  F8_E4M3: 1,
  I8: 1,
  U8: 1,
};

const HEADER_ALIGNMENT = 8;

/** A header as it is, true or not: its text (or bytes), the length the file claims it has, and the data behind it. */
export interface RawSafetensors {
  readonly header: string | Uint8Array;
  /** The header's own length when left out. */
  readonly claimedLength?: bigint;
  readonly data?: Uint8Array;
}

export function buildRawSafetensors({ header, claimedLength, data }: RawSafetensors): Buffer {
  const headerBytes = Buffer.from(header as string);
  const prefix = Buffer.alloc(8);
  prefix.writeBigUInt64LE(claimedLength ?? BigInt(headerBytes.length));
  return Buffer.concat([prefix, headerBytes, data ?? new Uint8Array()]);
}

/** A valid file, tensors in the order given. */
export function buildSafetensors(
  tensors: Readonly<Record<string, TensorSpec>>,
  metadata?: Readonly<Record<string, string>>,
): Buffer {
  const header: Record<string, unknown> = metadata === undefined ? {} : { __metadata__: metadata };
  const parts: Uint8Array[] = [];
  let position = 0;
  for (const [name, { dtype, shape, data }] of Object.entries(tensors)) {
    const elementBytes = BYTES_PER_ELEMENT[dtype];
    if (elementBytes === undefined) throw new Error(`no element size for ${dtype}`);
    const bytes = data ?? new Uint8Array(shape.reduce((product, size) => product * size, elementBytes));
    header[name] = { dtype, shape, data_offsets: [position, position + bytes.length] };
    position += bytes.length;
    parts.push(bytes);
  }
  const json = JSON.stringify(header);
  const padded = json.padEnd(Math.ceil(json.length / HEADER_ALIGNMENT) * HEADER_ALIGNMENT);
  return buildRawSafetensors({ header: padded, data: Buffer.concat(parts) });
}

export async function writeSafetensors(
  path: string,
  tensors: Readonly<Record<string, TensorSpec>>,
  metadata?: Readonly<Record<string, string>>,
): Promise<void> {
  await writeFile(path, buildSafetensors(tensors, metadata));
}

export async function writeRawSafetensors(path: string, raw: RawSafetensors): Promise<void> {
  await writeFile(path, buildRawSafetensors(raw));
}
