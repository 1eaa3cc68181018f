import { readdir } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { distance } from 'fastest-levenshtein';
import { UserError } from '../errors.js';
import { listNames, quote } from './quote.js';

/** A repository of the hub, at a branch, tag or commit. */
export interface RepoReference {
  /** `org/name` */
  readonly id: string;
  readonly revision: string;
  /** Where in the repository the model lies, `sub/folder`; absent: at its top level, or in the only folder with one. */
  readonly folder?: string;
}

export const DEFAULT_REVISION = 'main';

const MAX_REPO_ID_LENGTH = 96;
const REPO_PART = /^(?!.*(?:--|\.\.))[A-Za-z0-9_](?:[\w.-]*[A-Za-z0-9_])?$/;
/** A folder becomes a part of paths and of URLs. */
const FOLDER_PART = /^(?!\.{1,2}$)[\w.+-]+$/;
const MAX_FOLDER_LENGTH = 256;
const REVISION = /^[\w.+-]+(?:\/[\w.+-]+)*$/;
const COMMIT = /^[0-9a-f]{40}$/;
const MAX_SUGGESTED_NAMES = 3;

export function isCommit(revision: string): boolean {
  return COMMIT.test(revision);
}

/** A revision becomes part of a path (`refs/<revision>`) and of a URL. */
export function checkRevision(revision: string): string {
  if (REVISION.test(revision) && !revision.split('/').some((part) => part === '.' || part === '..'))
    return revision;
  throw new UserError(
    'usage',
    `Expected a branch, tag or commit as revision but received ${quote(revision)}.`,
    {
      param: 'revision',
      suggestions: ['Use the name of a branch or tag of the repository, or a full commit hash.'],
    },
  );
}

/** In front of a hub id: it is one, whatever folders there are. */
export const HUB_PREFIX = 'hf:';

export function isRepoFolder(folder: string): boolean {
  return folder.length <= MAX_FOLDER_LENGTH && folder.split('/').every((part) => FOLDER_PART.test(part));
}

/**
 * `org/name` or `org/name@revision`, with or without `hf:`, or `hf:org/name/sub/folder` with or without `@revision`;
 * undefined for anything else, which can only be a path: local names of three parts are not told to the hub.
 */
export function parseRepoReference(text: string, revision?: string): RepoReference | undefined {
  const reference = text.startsWith(HUB_PREFIX) ? text.slice(HUB_PREFIX.length) : text;
  const at = reference.indexOf('@');
  const place = at === -1 ? reference : reference.slice(0, at);
  const inline = at === -1 ? undefined : reference.slice(at + 1);
  const parts = place.split('/').slice(0, 2);
  const id = parts.join('/');
  const folder = place === id ? undefined : place.slice(id.length + 1);
  const isHubId = text.startsWith(HUB_PREFIX);
  if (folder !== undefined && !(isHubId && isRepoFolder(folder))) return undefined;
  if (parts.length !== 2 || id.length > MAX_REPO_ID_LENGTH || !parts.every((part) => REPO_PART.test(part))) {
    return undefined;
  }
  if (inline !== undefined && revision !== undefined && inline !== revision) {
    throw new UserError(
      'usage',
      `${quote(reference)} names the revision ${quote(inline)}, but the revision option says ${quote(revision)}.`,
      { param: 'revision', suggestions: ['Name the revision in one place.'] },
    );
  }
  return {
    id,
    revision: checkRevision(inline ?? revision ?? DEFAULT_REVISION),
    ...(folder === undefined ? {} : { folder }),
  };
}

/** A repository without a model at its top level and with several below. */
export function describeSeveralFolders(repo: RepoReference, folders: readonly string[]): UserError {
  const { id, revision } = repo;
  const [first = ''] = folders;
  const suffix = revision === DEFAULT_REVISION ? '' : `@${revision}`;
  return new UserError(
    'model_not_found',
    `${repo.id} holds ${folders.length} models of onnxruntime-genai, in ${listNames(folders)}.`,
    {
      param: repo.id,
      suggestions: [`Name the folder of one: ${HUB_PREFIX}${id}/${first}${suffix}`],
    },
  );
}

/** The command that fills the cache on a machine with a network. */
export function formatFetchCommand({ id, revision, folder }: RepoReference): string {
  const part = folder === undefined ? '' : ` --include "${folder}/*"`;
  return `huggingface-cli download ${id}${part}${revision === DEFAULT_REVISION ? '' : ` --revision ${revision}`}`;
}

/** Entries beside `path` whose names look like its own, nearest first, in the form the user typed. */
export async function findSimilarPaths(path: string): Promise<readonly string[]> {
  const wanted = basename(path);
  const parent = dirname(path);
  let names: readonly string[];
  try {
    names = (await readdir(parent, { withFileTypes: true }))
      .filter((entry) => (entry.isDirectory() || entry.isSymbolicLink()) && !entry.name.startsWith('.'))
      .map((entry) => entry.name);
  } catch {
    return [];
  }
  const limit = Math.max(2, Math.ceil(wanted.length / 2));
  return names
    .map((name) => ({ name, edits: distance(wanted.toLowerCase(), name.toLowerCase()) }))
    .filter(({ name, edits }) => edits <= limit || name.startsWith(wanted))
    .sort((a, b) => a.edits - b.edits || (a.name < b.name ? -1 : 1))
    .slice(0, MAX_SUGGESTED_NAMES)
    .map(({ name }) => (path.startsWith('./') ? `./${join(parent, name)}` : join(parent, name)));
}
