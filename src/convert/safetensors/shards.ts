import path from 'node:path';
import { BugError } from '../../errors.js';
import { SHARED_MODES } from '../../load/folder/staged-folder.js';
import { WeightsFile, type WeightsLayout } from '../../load/folder/weights-file.js';
import type { OutputTensor } from './plan-tensors.js';

/** As the model hub's own tools split checkpoints. */
const MAX_SHARD_BYTES = 5e9;
const LENGTH_BYTES = 8;
const HEADER_ALIGNMENT = 8;
/** No tensor is named so: the place of the header. */
const HEADER = '';

/** One safetensors file. */
interface Shard {
  readonly file: string;
  /** Length and JSON, as they start the file. */
  readonly header: Uint8Array;
  readonly layout: WeightsLayout;
}

/** The files of a checkpoint. */
export interface ShardPlan {
  readonly shards: readonly Shard[];
  /** Bytes of all tensors. */
  readonly tensorBytes: number;
  /** Bytes of all files. */
  readonly fileBytes: number;
}

/**
 * Places tensors in files of at most `maxBytes`, unless one tensor is larger. In a file wider elements come first, so
 * that every tensor is aligned; the format allows no gaps.
 * https://github.com/huggingface/safetensors describes the file.
 */
export function layOutShards(tensors: readonly OutputTensor[], maxBytes = MAX_SHARD_BYTES): ShardPlan {
  const groups: OutputTensor[][] = [];
  let free = 0;
  for (const tensor of tensors) {
    if (groups.length === 0 || tensor.byteLength > free) {
      groups.push([]);
      free = maxBytes;
    }
    groups.at(-1)?.push(tensor);
    free = Math.max(0, free - tensor.byteLength);
  }
  const shards = groups.map((group, index) => layOutFile(nameOf(index, groups.length), group));
  return {
    shards,
    tensorBytes: tensors.reduce((sum, { byteLength }) => sum + byteLength, 0),
    fileBytes: shards.reduce((sum, { layout }) => sum + layout.bytes, 0),
  };
}

/** `model.safetensors`, or `model-00001-of-00003.safetensors`. */
function nameOf(index: number, count: number): string {
  if (count === 1) return 'model.safetensors';
  const digits = (value: number): string => String(value).padStart(5, '0');
  return `model-${digits(index + 1)}-of-${digits(count)}.safetensors`;
}

function layOutFile(file: string, group: readonly OutputTensor[]): Shard {
  const tensors = [...group].sort((a, b) => elementBytes(b) - elementBytes(a));
  const entries: Record<string, unknown> = { __metadata__: { format: 'pt' } };
  let end = 0;
  for (const { name, dtype, shape, byteLength } of tensors) {
    entries[name] = { dtype, shape, data_offsets: [end, end + byteLength] };
    end += byteLength;
  }
  const json = Buffer.from(JSON.stringify(entries));
  const padded = Math.ceil(json.byteLength / HEADER_ALIGNMENT) * HEADER_ALIGNMENT;
  const header = Buffer.alloc(LENGTH_BYTES + padded, ' ');
  header.writeBigUInt64LE(BigInt(padded));
  header.set(json, LENGTH_BYTES);
  let offset = 0;
  const places = [{ name: HEADER, byteLength: header.byteLength }, ...tensors].map(({ name, byteLength }) => {
    const place = { name, dataType: 'uint8' as const, shape: [byteLength], offset, bytes: byteLength };
    offset += byteLength;
    return place;
  });
  return { file, header, layout: { tensors: places, bytes: offset } };
}

/** Bytes of an element; 1 for those of an empty tensor, which need no alignment. */
function elementBytes({ shape, byteLength }: OutputTensor): number {
  const count = shape.reduce((product, size) => product * size, 1);
  return count === 0 ? 1 : byteLength / count;
}

/** model.safetensors.index.json; undefined where one file holds everything. */
export function describeIndex({ shards, tensorBytes }: ShardPlan): object | undefined {
  if (shards.length < 2) return undefined;
  const places = shards.flatMap(({ file, layout }) =>
    layout.tensors.filter(({ name }) => name !== HEADER).map(({ name }) => [name, file] as const),
  );
  return { metadata: { total_size: tensorBytes }, weight_map: Object.fromEntries(places) };
}

/** The files while they are written: tensors in any order, each from front to back. */
export class ShardFiles {
  readonly #files: readonly WeightsFile[];
  readonly #fileOf: ReadonlyMap<string, WeightsFile>;

  private constructor(files: readonly WeightsFile[], fileOf: ReadonlyMap<string, WeightsFile>) {
    this.#files = files;
    this.#fileOf = fileOf;
  }

  /** @throws UserError `write_failed` */
  static async create(dir: string, { shards }: ShardPlan): Promise<ShardFiles> {
    const files: WeightsFile[] = [];
    const fileOf = new Map<string, WeightsFile>();
    for (const { file: name, header, layout } of shards) {
      const file = await WeightsFile.create(path.join(dir, name), layout, SHARED_MODES.file);
      files.push(file);
      for (const tensor of layout.tensors) fileOf.set(tensor.name, file);
      await file.write(HEADER, header);
    }
    return new ShardFiles(files, fileOf);
  }

  /** @throws UserError `write_failed` */
  async write(name: string, bytes: Uint8Array): Promise<void> {
    const file = this.#fileOf.get(name);
    if (file === undefined) throw new BugError(`${name} has no place in a file`);
    await file.write(name, bytes);
  }

  /** Proves that every tensor is complete. */
  finish(): void {
    for (const file of this.#files) file.finish();
  }

  async close(): Promise<void> {
    for (const file of this.#files) await file.close();
  }
}
