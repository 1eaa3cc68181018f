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

/** How messages say what a hub id is. A revision may have slashes, so that a folder stands before it. */
export const HUB_GRAMMAR =
  'A hub id is org/name or org/name@revision, and with a folder of the repository hf:org/name/folder@revision.';

/**
 * Reads a hub id: `[hf:]org/name[@revision]` or `hf:org/name/folder[@revision]`, where `/` may end what is before the
 * `@`. Text without `hf:` that is anything else can only be a path: local names of three parts are not told to the hub.
 * @param revision of the option; it and one in the text have to agree
 * @returns undefined for what can only be a path
 * @throws UserError `usage` for `hf:` before anything else, and for a revision that cannot be one
 */
export function parseRepoReference(text: string, revision?: string): RepoReference | undefined {
  const reference = text.startsWith(HUB_PREFIX) ? text.slice(HUB_PREFIX.length) : text;
  const at = reference.indexOf('@');
  const place = (at === -1 ? reference : reference.slice(0, at)).replace(/\/$/, '');
  const inline = at === -1 ? undefined : reference.slice(at + 1);
  const [org = '', name = '', ...folders] = place.split('/');
  const folder = folders.join('/');
  if (text.startsWith(HUB_PREFIX)) {
    const problem =
      findIdProblem(org, name) ?? (folders.length === 0 ? undefined : findFolderProblem(folder));
    if (problem !== undefined) throw describeNoHubId(text, problem);
  } else if (folders.length > 0 || findIdProblem(org, name) !== undefined) {
    return undefined;
  }
  if (inline !== undefined && revision !== undefined && inline !== revision) {
    throw new UserError(
      'usage',
      `${quote(reference)} names the revision ${quote(inline)}, but the revision option says ${quote(revision)}.`,
      { param: 'revision', suggestions: ['Name the revision in one place.'] },
    );
  }
  const repo = {
    id: `${org}/${name}`,
    revision: checkRevision(inline ?? revision ?? DEFAULT_REVISION),
    ...(folder === '' ? {} : { folder }),
  };
  const [first = ''] = repo.revision.split('/');
  if (first !== repo.revision && (first === DEFAULT_REVISION || isCommit(first)))
    throw describeFolderBehind(repo);
  return repo;
}

/** Whether `hf:` before the text makes it the name of a folder of a repository. */
export function isFolderReference(text: string): boolean {
  const [org = '', name = '', ...folders] = (text.split('@', 1)[0] ?? '').replace(/\/$/, '').split('/');
  return findIdProblem(org, name) === undefined && folders.length > 0 && isRepoFolder(folders.join('/'));
}

function findIdProblem(org: string, name: string): string | undefined {
  if (name === '') return 'it has no organisation and name with a slash between them';
  const wrong = [org, name].find((part) => !REPO_PART.test(part));
  if (wrong !== undefined) return `${quote(wrong)} is no name on the hub`;
  const { length } = `${org}/${name}`;
  return length > MAX_REPO_ID_LENGTH
    ? `its ${length} characters are more than ${MAX_REPO_ID_LENGTH}`
    : undefined;
}

function findFolderProblem(folder: string): string | undefined {
  return isRepoFolder(folder) ? undefined : `${quote(folder)} is no folder of a repository`;
}

function describeNoHubId(text: string, problem: string): UserError {
  return new UserError('usage', `${quote(text)} is not a hub id: ${problem}.`, {
    param: 'model',
    suggestions: [HUB_GRAMMAR, `For a folder of this machine leave ${HUB_PREFIX} out.`],
  });
}

/** Where a branch `main` is, git can have none below it; below a commit there is nothing either. */
function describeFolderBehind(repo: RepoReference): UserError {
  const { id, revision } = repo;
  return new UserError(
    'usage',
    `${quote(revision)} is not a revision of ${id}: nothing can follow ${quote(revision.slice(0, revision.indexOf('/')))}.`,
    {
      param: 'revision',
      suggestions: [adviseFolderFirst(repo) ?? '', HUB_GRAMMAR],
    },
  );
}

/** What to write if the end of a revision was meant as a folder; undefined for a revision of one part. */
export function adviseFolderFirst({ id, revision, folder }: RepoReference): string | undefined {
  const slash = revision.indexOf('/');
  if (slash === -1 || revision.startsWith('refs/')) return undefined;
  const place = [id, ...(folder === undefined ? [] : [folder]), revision.slice(slash + 1)].join('/');
  return `For the folder ${revision.slice(slash + 1)} write ${HUB_PREFIX}${place}@${revision.slice(0, slash)}.`;
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

/** The command of huggingface_hub (pip install huggingface_hub) that fills the cache on a machine with a network. */
export function formatFetchCommand({ id, revision, folder }: RepoReference): string {
  const part = folder === undefined ? '' : ` --include "${folder}/*"`;
  return `hf download ${id}${part}${revision === DEFAULT_REVISION ? '' : ` --revision ${revision}`}`;
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
