import { createHash } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join, relative } from 'node:path';

/** Something that goes wrong, for requests whose path contains `match`. */
export interface Fault {
  readonly match: string;
  /** How many requests it hits; all of them when left out. */
  times?: number;
  /** Answer with this status (and X-Error-Code). */
  readonly status?: number;
  readonly errorCode?: string;
  /** Close the connection after so many bytes of the body. */
  readonly cutAfter?: number;
  /** Send so many bytes of the body, then nothing more. */
  readonly hangAfter?: number;
  /** Send the whole file whatever range was asked for. */
  readonly ignoresRange?: boolean;
  /** Flip a bit of the body. */
  readonly corrupts?: boolean;
  /** Body of the answer instead of the real one. */
  readonly body?: string;
  /** `match` is `tree:next`: the link to a listing's next page leads to the other origin. */
  readonly leadsAway?: boolean;
  /** Size that the file listing claims. */
  readonly claimedSize?: number;
}

export interface HubServerOptions {
  /** Model id → folder, or revision → folder. */
  readonly models: Readonly<Record<string, string | Readonly<Record<string, string>>>>;
  /** Refuse requests without this bearer token. */
  readonly token?: string;
  readonly faults?: readonly Fault[];
}

export interface RecordedRequest {
  readonly method: string;
  /** With its query. */
  readonly path: string;
  readonly server: 'hub' | 'cdn';
  readonly range: string | undefined;
  readonly authorization: string | undefined;
  /** Body bytes handed to the socket. */
  bytesSent: number;
}

export interface HubServer {
  readonly url: string;
  readonly requests: RecordedRequest[];
  /** Mutable: a test adds and removes faults between calls. */
  readonly faults: Fault[];
  /** The commit a revision of a model stands for. */
  getCommit(id: string, revision?: string): string;
  close(): Promise<void>;
}

interface StoredFile {
  readonly name: string;
  readonly bytes: Buffer;
  /** Git blob SHA-1. */
  readonly oid: string;
  /** SHA-256, for files kept outside of git. */
  readonly lfsOid: string | undefined;
}

interface StoredRevision {
  readonly commit: string;
  readonly files: readonly StoredFile[];
}

const LFS_THRESHOLD_BYTES = 10_000;
const FILES_PER_PAGE = 4;

async function loadRevision(dir: string): Promise<StoredRevision> {
  const names = (await readdir(dir, { withFileTypes: true, recursive: true }))
    .filter((entry) => entry.isFile())
    .map(({ name, parentPath }) => relative(dir, join(parentPath, name)));
  const files = await Promise.all(
    names.sort().map(async (name): Promise<StoredFile> => {
      const bytes = await readFile(join(dir, name));
      const oid = createHash('sha1').update(`blob ${bytes.length}\0`).update(bytes).digest('hex');
      const isLfs = name.endsWith('.safetensors') || bytes.length > LFS_THRESHOLD_BYTES;
      return {
        name,
        bytes,
        oid,
        lfsOid: isLfs ? createHash('sha256').update(bytes).digest('hex') : undefined,
      };
    }),
  );
  const commit = createHash('sha1').update(files.map(({ name, oid }) => `${name} ${oid}`).join('\n'));
  return { commit: commit.digest('hex'), files };
}

/** Files and names of folders in a folder, or everything below it. */
function listTree(
  files: readonly StoredFile[],
  folder: string,
  isRecursive: boolean,
): readonly (StoredFile | string)[] {
  const prefix = folder === '' ? '' : `${folder}/`;
  const below = files.filter(({ name }) => name.startsWith(prefix));
  const depth = prefix.split('/').length;
  const folders = below.flatMap(({ name }) =>
    name
      .split('/')
      .slice(0, -1)
      .map((_, index, parts) => parts.slice(0, index + 1).join('/'))
      .filter((path) => path.length >= prefix.length),
  );
  const entries = [...new Set(folders), ...below];
  const pathOf = (entry: StoredFile | string): string => (typeof entry === 'string' ? entry : entry.name);
  return isRecursive ? entries : entries.filter((entry) => pathOf(entry).split('/').length === depth);
}

function listen(server: Server): Promise<string> {
  return new Promise((resolve) => {
    server.listen(0, '127.0.0.1', () =>
      resolve(`http://127.0.0.1:${(server.address() as AddressInfo).port}`),
    );
  });
}

function sendJson(
  response: ServerResponse,
  status: number,
  value: unknown,
  headers: Record<string, string> = {},
): void {
  response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(value));
}

/** State of one running server. */
class Hub {
  readonly requests: RecordedRequest[] = [];
  readonly faults: Fault[];
  url = '';
  cdnUrl = '';

  constructor(
    /** Model id → branch, tag or commit → content. */
    readonly models: ReadonlyMap<string, ReadonlyMap<string, StoredRevision>>,
    readonly token: string | undefined,
    faults: readonly Fault[],
  ) {
    this.faults = [...faults];
  }

  takeFault(path: string): Fault | undefined {
    const fault = this.faults.find(({ match, times }) => path.includes(match) && (times ?? 1) > 0);
    if (fault?.times !== undefined) fault.times--;
    return fault;
  }

  record(request: IncomingMessage, server: 'hub' | 'cdn'): RecordedRequest {
    const { range, authorization } = request.headers;
    const { method = '', url: path = '' } = request;
    const recorded = { method, path, server, range, authorization, bytesSent: 0 };
    this.requests.push(recorded);
    return recorded;
  }

  async handleHub(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const recorded = this.record(request, 'hub');
    const url = new URL(recorded.path, this.url);
    const fault = this.takeFault(url.pathname);
    if (fault?.status !== undefined) {
      const headers = fault.errorCode === undefined ? {} : { 'x-error-code': fault.errorCode };
      return sendJson(response, fault.status, { error: 'fault' }, headers);
    }
    if (fault?.body !== undefined) return void response.writeHead(200).end(fault.body);
    if (this.token !== undefined && recorded.authorization !== `Bearer ${this.token}`) {
      return sendJson(response, 401, { error: 'Invalid username or password.' });
    }
    const route =
      /^\/api\/models\/(?<id>[^/]+\/[^/]+)\/(?<kind>revision|tree)\/(?<rev>.+)$/.exec(url.pathname) ??
      /^\/(?<id>[^/]+\/[^/]+)\/(?<kind>resolve)\/(?<rev>[^/]+)\/(?<file>.+)$/.exec(url.pathname);
    const { id = '', kind = '', rev = '', file: fileName = '' } = route?.groups ?? {};
    const revisions = this.models.get(id);
    if (revisions === undefined) return this.refuse(response, 'RepoNotFound');
    const place = kind === 'tree' ? decodeURIComponent(rev) : rev;
    const known = [...revisions.keys()].find((name) => `${place}/`.startsWith(`${name}/`));
    const revision = revisions.get(kind === 'tree' ? (known ?? '') : decodeURIComponent(rev));
    if (revision === undefined) return this.refuse(response, 'RevisionNotFound');
    if (kind === 'revision') return this.sendInfo(response, id, revision);
    if (kind === 'tree') {
      const folder = place.slice((known ?? '').length + 1);
      const entries = listTree(revision.files, folder, url.searchParams.get('recursive') === 'true');
      if (entries.length === 0) return this.refuse(response, 'EntryNotFound');
      return this.sendTree(response, url, entries);
    }
    const file = revision.files.find(({ name }) => name === decodeURIComponent(fileName));
    if (file === undefined) return this.refuse(response, 'EntryNotFound');
    await this.sendResolved(request, response, { recorded, revision, file, fault });
  }

  refuse(response: ServerResponse, code: string): void {
    sendJson(response, 404, { error: code }, { 'x-error-code': code });
  }

  sendInfo(response: ServerResponse, id: string, { commit, files }: StoredRevision): void {
    sendJson(response, 200, {
      _id: commit.slice(0, 24),
      id,
      sha: commit,
      private: false,
      gated: false,
      downloads: 0,
      likes: 0,
      lastModified: '2025-01-01T00:00:00.000Z',
      siblings: files.map(({ name }) => ({ rfilename: name })),
    });
  }

  sendTree(response: ServerResponse, url: URL, entries: readonly (StoredFile | string)[]): void {
    const start = Number(url.searchParams.get('cursor') ?? 0);
    const end = start + FILES_PER_PAGE;
    const page = entries.slice(start, end).map((entry) => {
      if (typeof entry === 'string') return { type: 'directory', oid: '', size: 0, path: entry };
      const { name, bytes, oid, lfsOid } = entry;
      const size = this.faults.find(({ match }) => match === `tree:${name}`)?.claimedSize ?? bytes.length;
      const lfs = lfsOid === undefined ? {} : { lfs: { oid: lfsOid, size, pointerSize: 130 } };
      return { type: 'file', oid, size, path: name, ...lfs };
    });
    const leadsAway = this.faults.some(
      ({ match, leadsAway: isSet }) => match === 'tree:next' && isSet === true,
    );
    const next = new URL(`${url.pathname}${url.search}`, leadsAway ? this.cdnUrl : url);
    next.searchParams.set('cursor', String(end));
    sendJson(response, 200, page, end < entries.length ? { link: `<${next.href}>; rel="next"` } : {});
  }

  async sendResolved(
    request: IncomingMessage,
    response: ServerResponse,
    found: {
      readonly recorded: RecordedRequest;
      readonly revision: StoredRevision;
      readonly file: StoredFile;
      readonly fault: Fault | undefined;
    },
  ): Promise<void> {
    const { revision, file, fault } = found;
    const etag = `"${file.lfsOid ?? file.oid}"`;
    response.setHeader('x-repo-commit', revision.commit);
    if (file.lfsOid === undefined) return this.sendBytes(request, response, found);
    response.setHeader('x-linked-etag', etag);
    response.setHeader('x-linked-size', file.bytes.length);
    // The fault belongs to the bytes, which the other server sends.
    if (fault?.times !== undefined) fault.times++;
    response
      .writeHead(302, { location: `${this.cdnUrl}/${file.lfsOid}/${encodeURIComponent(file.name)}` })
      .end();
  }

  async handleCdn(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const recorded = this.record(request, 'cdn');
    const [, oid = '', name = ''] = recorded.path.split('/');
    const file = [...this.models.values()]
      .flatMap((revisions) => [...revisions.values()])
      .flatMap(({ files }) => files)
      .find(({ lfsOid }) => lfsOid === oid);
    if (file === undefined) return void response.writeHead(404).end();
    await this.sendBytes(request, response, {
      recorded,
      file,
      fault: this.takeFault(decodeURIComponent(name)),
    });
  }

  async sendBytes(
    request: IncomingMessage,
    response: ServerResponse,
    {
      recorded,
      file,
      fault,
    }: { readonly recorded: RecordedRequest; readonly file: StoredFile; readonly fault: Fault | undefined },
  ): Promise<void> {
    const { bytes } = file;
    response.setHeader('etag', `"${file.lfsOid ?? file.oid}"`);
    response.setHeader('accept-ranges', 'bytes');
    const range = fault?.ignoresRange === true ? null : /^bytes=(\d+)-(\d*)$/.exec(recorded.range ?? '');
    const start = Number(range?.[1] ?? 0);
    const end = Math.min(bytes.length, range?.[2] ? Number(range[2]) + 1 : bytes.length);
    if (range !== null && start >= bytes.length) {
      return void response.writeHead(416, { 'content-range': `bytes */${bytes.length}` }).end();
    }
    if (range !== null) response.setHeader('content-range', `bytes ${start}-${end - 1}/${bytes.length}`);
    response.writeHead(range === null ? 200 : 206, { 'content-length': end - start });
    if (request.method === 'HEAD') return void response.end();

    const body = Buffer.from(bytes.subarray(start, end));
    if (fault?.corrupts === true && body.length > 0) body[0] = (body[0] ?? 0) ^ 1;
    const limit = fault?.cutAfter ?? fault?.hangAfter;
    const sent = limit === undefined ? body : body.subarray(0, limit);
    recorded.bytesSent = sent.length;
    if (limit === undefined) return void response.end(sent);
    response.write(sent);
    // An orderly end of the connection, after the bytes: a reset could overtake them.
    if (fault?.hangAfter === undefined) response.socket?.end();
  }
}

function startServer(handle: (request: IncomingMessage, response: ServerResponse) => Promise<void>): Server {
  return createServer((request, response) => {
    handle(request, response).catch((error: unknown) => response.destroy(error as Error));
  });
}

/**
 * A local server that speaks the part of the Hugging Face hub protocol that downloads need: model information, paged
 * file listings, `resolve` with ranges and ETags. LFS files are redirected to a second origin, as the hub does.
 */
export async function startHubServer(options: HubServerOptions): Promise<HubServer> {
  const models = new Map<string, ReadonlyMap<string, StoredRevision>>();
  for (const [id, folders] of Object.entries(options.models)) {
    const revisions = new Map<string, StoredRevision>();
    for (const [name, dir] of Object.entries(typeof folders === 'string' ? { main: folders } : folders)) {
      const revision = await loadRevision(dir);
      revisions.set(name, revision).set(revision.commit, revision);
    }
    models.set(id, revisions);
  }
  const hub = new Hub(models, options.token, options.faults ?? []);
  const servers = [
    startServer((request, response) => hub.handleHub(request, response)),
    startServer((request, response) => hub.handleCdn(request, response)),
  ] as const;
  hub.url = await listen(servers[0]);
  hub.cdnUrl = await listen(servers[1]);
  return {
    url: hub.url,
    requests: hub.requests,
    faults: hub.faults,
    getCommit: (id, revision = 'main') => models.get(id)?.get(revision)?.commit ?? '',
    close: async () => {
      await Promise.all(
        servers.map((server) => {
          const closed = new Promise((resolve) => server.close(resolve));
          server.closeAllConnections();
          return closed;
        }),
      );
    },
  };
}
