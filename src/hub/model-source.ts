import { openWeightFile, readExactly, readSmallFile, resolveFile, identify } from './weight-file.js';
import type { FileIdentity } from './weight-file.js';
import { resolveModelFile } from './weight-files.js';

/** A weight file of which parts are read. */
export interface WeightReader {
  /** As messages call it. */
  readonly label: string;
  readonly file: FileIdentity;
  /** Fills `buffer` from `position`; false when the file ends before that. */
  read(buffer: Uint8Array, position: number): Promise<boolean>;
  close(): Promise<void>;
}

/** What the headers of a checkpoint are read from: a folder, or a repository of the hub. */
export interface ModelSource {
  /** Names in the folder, or at the top level of the repository. */
  readonly names: readonly string[];
  /**
   * A whole small file.
   * @throws UserError `invalid_checkpoint` when it is missing or has more than `maxBytes`
   */
  readSmall(name: string, maxBytes: number): Promise<Uint8Array>;
  /** @throws UserError `invalid_checkpoint` when it is missing */
  openWeights(name: string): Promise<WeightReader>;
  /** Opens a file again, which must still be the one identified. */
  reopen(file: FileIdentity): Promise<WeightReader>;
}

/** Opens a weight file of this machine. */
export async function openLocalWeights(path: string, expected?: FileIdentity): Promise<WeightReader> {
  const resolved = await resolveFile(path);
  const handle = await openWeightFile(resolved, expected);
  try {
    return {
      label: path,
      file: await identify(handle, resolved),
      read: (buffer, position) => readExactly(handle, buffer, position),
      close: () => handle.close(),
    };
  } catch (error) {
    await handle.close();
    throw error;
  }
}

/** A folder that has, or will have, the files `names`. */
export function createFolderSource(dir: string, names: readonly string[]): ModelSource {
  return {
    names,
    readSmall: async (name, maxBytes) => readSmallFile(await resolveModelFile(dir, name), maxBytes),
    openWeights: async (name) => openLocalWeights(await resolveModelFile(dir, name)),
    reopen: (file) => openLocalWeights(file.path, file),
  };
}
