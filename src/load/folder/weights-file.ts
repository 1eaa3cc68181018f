import { createHash, type Hash } from 'node:crypto';
import { open, type FileHandle } from 'node:fs/promises';
import { BugError } from '../../errors.js';
import { byteLengthOf } from '../../graph/data-types.js';
import type { DataType, Initializer } from '../../graph/ir.js';
import { writeFailure } from './write-problems.js';

/** Tensors start on a page, so that each can be mapped by itself. */
export const TENSOR_ALIGNMENT = 4096;
/** Bytes hashed and written at a time: hashing them keeps the JS thread for well under a millisecond. */
const CHUNK_BYTES = 1 << 20;

/** Where a tensor lies in weights.bin. */
export interface TensorPlace {
  readonly name: string;
  readonly dataType: DataType;
  readonly shape: readonly number[];
  readonly offset: number;
  readonly bytes: number;
}

/** A tensor whose bytes are written. */
export interface WrittenTensor extends TensorPlace {
  /** Lower-case hex, of exactly `bytes` bytes. */
  readonly sha256: string;
}

export interface WeightsLayout {
  readonly tensors: readonly TensorPlace[];
  /** Size of the file, whole pages. */
  readonly bytes: number;
}

/** Gives every initializer that is not inline its place, in the order given. */
export function layOutTensors(initializers: Iterable<Initializer>): WeightsLayout {
  const tensors: TensorPlace[] = [];
  let end = 0;
  for (const { name, dataType, shape, data } of initializers) {
    if (data.kind === 'inline') continue;
    const bytes = byteLengthOf(dataType, shape);
    tensors.push({ name, dataType, shape, offset: end, bytes });
    end += Math.ceil(bytes / TENSOR_ALIGNMENT) * TENSOR_ALIGNMENT;
  }
  return { tensors, bytes: end };
}

interface Progress {
  readonly place: TensorPlace;
  readonly hash: Hash;
  done: number;
}

/** weights.bin while it is written: tensors in any order, each from front to back. */
export class WeightsFile {
  readonly #path: string;
  readonly #handle: FileHandle;
  readonly #tensors: ReadonlyMap<string, Progress>;

  private constructor(path: string, handle: FileHandle, layout: WeightsLayout) {
    this.#path = path;
    this.#handle = handle;
    this.#tensors = new Map(
      layout.tensors.map((place) => [place.name, { place, hash: createHash('sha256'), done: 0 }]),
    );
  }

  /**
   * Creates the file with its final size; the space is taken as it is written.
   * @param mode of the file, less what the umask takes
   * @throws UserError `write_failed`
   */
  static async create(path: string, layout: WeightsLayout, mode: number): Promise<WeightsFile> {
    let handle: FileHandle | undefined;
    try {
      handle = await open(path, 'wx', mode);
      await handle.truncate(layout.bytes);
      return new WeightsFile(path, handle, layout);
    } catch (error) {
      await handle?.close();
      throw writeFailure(path, error);
    }
  }

  /**
   * Writes the next bytes of a tensor.
   * @param pause waited for between chunks, to leave the machine to others
   * @throws UserError `write_failed`; whatever `pause` throws
   */
  async write(name: string, bytes: Uint8Array, pause?: () => Promise<void>): Promise<void> {
    const progress = this.#tensors.get(name);
    if (progress === undefined || progress.done + bytes.byteLength > progress.place.bytes) {
      throw new BugError(`${bytes.byteLength} bytes of ${name} have no place in ${this.#path}`);
    }
    for (let start = 0; start < bytes.byteLength; start += CHUNK_BYTES) {
      const chunk = bytes.subarray(start, start + CHUNK_BYTES);
      const position = progress.place.offset + progress.done;
      progress.hash.update(chunk);
      progress.done += chunk.byteLength;
      await this.#writeAll(chunk, position);
      await pause?.();
    }
  }

  /** The tensors with their digests, when every one is complete. */
  finish(): readonly WrittenTensor[] {
    return [...this.#tensors.values()].map(({ place, hash, done }) => {
      if (done !== place.bytes) throw new BugError(`only ${done} bytes of ${place.name} were written`);
      return { ...place, sha256: hash.digest('hex') };
    });
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }

  async #writeAll(chunk: Uint8Array, position: number): Promise<void> {
    try {
      let done = 0;
      while (done < chunk.byteLength) {
        const { bytesWritten } = await this.#handle.write(
          chunk,
          done,
          chunk.byteLength - done,
          position + done,
        );
        done += bytesWritten;
      }
    } catch (error) {
      throw writeFailure(this.#path, error);
    }
  }
}
