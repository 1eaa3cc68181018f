import { hash } from 'node:crypto';
import { BugError } from '../errors.js';

const DIGEST_BYTES = 32;

/**
 * Names full KV blocks by what they hold: SHA-256 of the parent's digest and the block's token ids, so a digest
 * stands for every token from the start of the sequence. Digests are 32-character binary strings.
 */
export class PrefixHasher {
  private readonly bytes: Buffer;
  private readonly ids: Int32Array;

  constructor(private readonly blockSize: number) {
    const memory = new ArrayBuffer(DIGEST_BYTES + Int32Array.BYTES_PER_ELEMENT * blockSize);
    this.bytes = Buffer.from(memory);
    this.ids = new Int32Array(memory, DIGEST_BYTES);
  }

  /** Parent of the first block. Chains of different domains or salts never meet. */
  root(domain: 'open' | 'salted' | 'private', salt: string): string {
    return hash('sha256', `fdq prefix ${domain}\0${salt}`, 'binary');
  }

  /** `tokens`: the ids of one full block. */
  extend(parent: string, tokens: Int32Array): string {
    this.bytes.write(parent, 0, 'latin1');
    this.ids.set(tokens);
    return hash('sha256', this.bytes, 'binary');
  }

  /** Digests of all full blocks of `tokens`. */
  chain(root: string, tokens: Int32Array): string[] {
    const digests: string[] = [];
    let parent = root;
    for (let end = this.blockSize; end <= tokens.length; end += this.blockSize) {
      parent = this.extend(parent, tokens.subarray(end - this.blockSize, end));
      digests.push(parent);
    }
    return digests;
  }
}

/**
 * Owner of the KV blocks. A block is *used* (referenced by sequences), *cached* (unreferenced, but its contents
 * have a digest and can be taken up again) or *free*. Every operation is O(1). The idea of a reference-counted
 * hash chain over full blocks is vLLM's automatic prefix caching.
 */
export class BlockManager {
  private readonly refCounts: Int32Array; // [numBlocks]
  private readonly digests: (string | undefined)[]; // [numBlocks]
  private readonly byDigest = new Map<string, number>();
  // Ring of unreferenced blocks, the next to be given away first: free ones, then cached ones by last use.
  private readonly next: Int32Array; // [numBlocks + 1]; the last entry is the sentinel
  private readonly previous: Int32Array;
  private numUnreferenced = 0;
  private numCached = 0;

  constructor(
    readonly numBlocks: number,
    readonly blockSize: number,
  ) {
    this.refCounts = new Int32Array(numBlocks);
    this.digests = new Array<string | undefined>(numBlocks).fill(undefined);
    this.next = new Int32Array(numBlocks + 1).fill(numBlocks);
    this.previous = new Int32Array(numBlocks + 1).fill(numBlocks);
    for (let block = 0; block < numBlocks; block++) this.link(block, this.previous[numBlocks] as number);
  }

  /** Blocks that `allocate` can give. */
  get available(): number {
    return this.numUnreferenced;
  }

  get used(): number {
    return this.numBlocks - this.numUnreferenced;
  }

  get cached(): number {
    return this.numCached;
  }

  get free(): number {
    return this.numUnreferenced - this.numCached;
  }

  blocksFor(numTokens: number): number {
    return Math.ceil(numTokens / this.blockSize);
  }

  refCount(block: number): number {
    return this.refCounts[block] ?? 0;
  }

  /** The block that holds what `digest` names. */
  find(digest: string): number | undefined {
    return this.byDigest.get(digest);
  }

  /** A block nobody else references, its old contents forgotten. Callers check `available` first. */
  allocate(): number {
    const block = this.next[this.numBlocks] as number;
    if (block === this.numBlocks) throw new BugError(`all ${this.numBlocks} KV blocks are in use`);
    this.unlink(block);
    const digest = this.digests[block];
    if (digest !== undefined) {
      this.byDigest.delete(digest);
      this.digests[block] = undefined;
      this.numCached--;
    }
    this.refCounts[block] = 1;
    return block;
  }

  /** One more reference to a block that `find` gave. */
  share(block: number): void {
    const count = this.refCount(block);
    if (count === 0) {
      this.unlink(block);
      this.numCached--;
    }
    this.refCounts[block] = count + 1;
  }

  /** Drops a reference. The last one makes the block the newest of the cached, or the first of the free. */
  release(block: number): void {
    const count = this.refCount(block);
    if (count <= 0) throw new BugError(`KV block ${block} was released more often than taken`);
    this.refCounts[block] = count - 1;
    if (count > 1) return;
    const isCached = this.digests[block] !== undefined;
    if (isCached) this.numCached++;
    this.link(block, isCached ? (this.previous[this.numBlocks] as number) : this.numBlocks);
  }

  /** Makes a full, completely written block findable, unless another block already holds the same. */
  publish(block: number, digest: string): void {
    if (this.digests[block] !== undefined || this.byDigest.has(digest)) return;
    this.digests[block] = digest;
    this.byDigest.set(digest, block);
  }

  /** Walks everything; for tests. */
  audit(): void {
    let unreferenced = 0;
    let cached = 0;
    let seenCached = false;
    const first = this.next[this.numBlocks] as number;
    for (let block = first; block !== this.numBlocks; block = this.next[block] as number) {
      if (this.refCount(block) !== 0) throw new BugError(`KV block ${block} is listed as unreferenced`);
      const isCached = this.digests[block] !== undefined;
      if (seenCached && !isCached) throw new BugError(`free KV block ${block} is behind cached ones`);
      seenCached ||= isCached;
      cached += isCached ? 1 : 0;
      unreferenced++;
    }
    const referenced = this.refCounts.reduce((sum, count) => sum + (count > 0 ? 1 : 0), 0);
    if (unreferenced !== this.numUnreferenced || referenced !== this.used || cached !== this.numCached) {
      throw new BugError(`KV blocks: listed ${unreferenced}, referenced ${referenced}, cached ${cached}`);
    }
    const named = this.digests.reduce((sum, digest) => sum + (digest === undefined ? 0 : 1), 0);
    if (named !== this.byDigest.size)
      throw new BugError(`${named} KV blocks have ${this.byDigest.size} names`);
    for (const [digest, block] of this.byDigest) {
      if (this.digests[block] !== digest) throw new BugError(`KV block ${block} goes by a stale digest`);
    }
  }

  private link(block: number, after: number): void {
    const following = this.next[after] as number;
    this.next[after] = block;
    this.previous[block] = after;
    this.next[block] = following;
    this.previous[following] = block;
    this.numUnreferenced++;
  }

  private unlink(block: number): void {
    const before = this.previous[block] as number;
    const following = this.next[block] as number;
    this.next[before] = following;
    this.previous[following] = before;
    this.numUnreferenced--;
  }
}
