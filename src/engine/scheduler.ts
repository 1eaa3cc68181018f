import { BugError } from '../errors.js';
import type { BlockManager, PrefixHasher } from './block-manager.js';
import type { Sequence, StepShare } from './sequence.js';
import { WaitingQueue } from './waiting-queue.js';

export interface SchedulerLimits {
  readonly maxNumSeqs: number;
  readonly maxNumBatchedTokens: number;
  readonly maxLogitRows: number;
  /** Most tokens of one prefill in a step. */
  readonly longPrefillTokenThreshold: number;
  /** Most sequences in the middle of their prefill. */
  readonly maxNumPartialPrefills: number;
}

export interface Admission {
  readonly sequence: Sequence;
  readonly cachedTokens: number;
}

/** One step, all its blocks reserved. */
export interface StepPlan {
  /** Decodes, then prefills. */
  readonly shares: readonly StepShare[];
  /** Left the queue for this step, or for good when their goal is 0. */
  readonly admissions: readonly Admission[];
  readonly numPreempted: number;
}

/**
 * Continuous batching (Orca, Yu et al. 2022) with chunked prefill: decodes first, then prefills under way, then
 * waiting sequences. When blocks run out the last sequence in the order of `Sequence.isBefore` gives its own up
 * and is computed again later; the first never does, so there is always progress.
 */
export class Scheduler {
  readonly running = new Set<Sequence>();
  readonly waiting = new WaitingQueue();
  private placed: Sequence[] = [];
  private tokenBudget = 0;
  private rowBudget = 0;
  private numPreempted = 0;
  private isShortOfBlocks = false;

  constructor(
    private readonly limits: SchedulerLimits,
    private readonly blocks: BlockManager,
    private readonly hasher: PrefixHasher,
  ) {}

  add(sequence: Sequence): void {
    sequence.phase = 'waiting';
    this.waiting.push(sequence);
  }

  /**
   * Takes a sequence out wherever it is. Its blocks may still be written by the step under way: nobody gets them
   * before the next `schedule`.
   */
  remove(sequence: Sequence): void {
    if (sequence.phase === 'waiting') this.waiting.delete(sequence);
    if (sequence.phase === 'running') this.running.delete(sequence);
    sequence.phase = 'finished';
    this.releaseBlocks(sequence);
  }

  schedule(): StepPlan {
    this.begin();
    for (const sequence of this.running) if (remaining(sequence) === 1) this.place(sequence);
    for (const sequence of this.running) if (remaining(sequence) > 1) this.place(sequence);
    const admissions = this.isShortOfBlocks ? [] : this.admitWaiting();
    const shares: StepShare[] = [];
    for (const { share } of this.placed) if (share !== null) shares.push(share);
    return { shares, admissions, numPreempted: this.numPreempted };
  }

  private begin(): void {
    this.placed = [];
    this.tokenBudget = this.limits.maxNumBatchedTokens;
    this.rowBudget = this.limits.maxLogitRows;
    this.numPreempted = 0;
    this.isShortOfBlocks = false;
    for (const sequence of this.running) sequence.share = null;
  }

  /** After the step: its tokens are in the cache, and blocks it filled can be found by others. */
  commit(share: StepShare): void {
    const { sequence } = share;
    const size = this.blocks.blockSize;
    sequence.numComputed = share.start + share.numTokens;
    const table = sequence.blocks;
    for (let block = Math.floor(share.start / size); (block + 1) * size <= sequence.numComputed; block++) {
      const digest = this.digest(sequence, block);
      if (digest === null) return;
      this.blocks.publish(table[block] as number, digest);
    }
  }

  private digest(sequence: Sequence, block: number): string | null {
    const size = this.blocks.blockSize;
    const extend = (parent: string, start: number): string => {
      const tokens = new Int32Array(size);
      sequence.copyTokens(start, start + size, tokens, 0);
      return this.hasher.extend(parent, tokens);
    };
    return sequence.digest(block, extend, size);
  }

  /** Gives a running sequence as much of the step as it can have. */
  private place(sequence: Sequence): void {
    if (sequence.phase !== 'running' || sequence.share !== null) return;
    if (this.affordable(sequence, sequence.numComputed) === 0) return;
    let room = this.roomFor(sequence);
    while (room === 0) {
      this.isShortOfBlocks = true;
      const victim = this.lastRunning();
      if (victim === sequence) return;
      this.preempt(victim);
      room = this.roomFor(sequence);
    }
    const wanted = this.affordable(sequence, sequence.numComputed);
    const numTokens = Math.min(wanted, room);
    if (numTokens < wanted) this.isShortOfBlocks = true;
    this.reserve(sequence, numTokens);
  }

  private reserve(sequence: Sequence, numTokens: number): void {
    const share = makeShare(sequence, sequence.numComputed, numTokens);
    const needed = this.blocks.blocksFor(share.start + numTokens);
    while (sequence.numBlocks < needed) sequence.addBlock(this.blocks.allocate());
    sequence.share = share;
    this.placed.push(sequence);
    this.tokenBudget -= numTokens;
    this.rowBudget -= rowsOf(share);
  }

  private preempt(victim: Sequence): void {
    this.running.delete(victim);
    if (victim.share !== null) {
      this.tokenBudget += victim.share.numTokens;
      this.rowBudget += rowsOf(victim.share);
      victim.share = null;
    }
    this.releaseBlocks(victim);
    this.add(victim);
    this.numPreempted++;
  }

  private admitWaiting(): Admission[] {
    const admissions: Admission[] = [];
    for (let next = this.waiting.peek(); next !== undefined; next = this.waiting.peek()) {
      if (next.goal === 0) {
        this.waiting.delete(next);
        next.phase = 'running';
        this.running.add(next);
        admissions.push({ sequence: next, cachedTokens: 0 });
        continue;
      }
      if (this.running.size >= this.limits.maxNumSeqs) break;
      const cachedTokens = this.admit(next);
      if (cachedTokens < 0) break;
      admissions.push({ sequence: next, cachedTokens });
    }
    return admissions;
  }

  /** Tokens found in the prefix cache; -1: there is no place for the sequence in this step. */
  private admit(sequence: Sequence): number {
    const isAlone = this.running.size === 0;
    const headroom = isAlone ? 0 : this.running.size + this.owedBlocks();
    if (this.tokenBudget === 0 || this.blocks.available <= headroom) return -1;
    const hits = this.findCached(sequence);
    const start = hits.length * this.blocks.blockSize;
    const numTokens = this.affordable(sequence, start);
    if (numTokens === 0) return -1;
    if (start + numTokens < sequence.goal && this.countPartial() >= this.limits.maxNumPartialPrefills)
      return -1;
    const idle = hits.reduce((sum, block) => sum + (this.blocks.refCount(block) === 0 ? 1 : 0), 0);
    const needed = this.blocks.blocksFor(sequence.goal) - hits.length;
    if (needed + idle + headroom > this.blocks.available) {
      if (isAlone)
        throw new BugError(`request ${sequence.request.id} needs ${needed} KV blocks and is alone`);
      return -1;
    }
    this.waiting.delete(sequence);
    for (const block of hits) {
      this.blocks.share(block);
      sequence.addBlock(block);
    }
    sequence.numComputed = start;
    sequence.phase = 'running';
    this.running.add(sequence);
    this.reserve(sequence, numTokens);
    return start;
  }

  /** Blocks that hold the start of a sequence, short of its last token and of positions still to be scored. */
  private findCached(sequence: Sequence): number[] {
    const reusable = sequence.numTokens - 1;
    const limit = sequence.isScoring ? Math.min(reusable, sequence.unscoredStart) : reusable;
    const found: number[] = [];
    for (let block = 0; (block + 1) * this.blocks.blockSize <= limit; block++) {
      const digest = this.digest(sequence, block);
      const hit = digest === null ? undefined : this.blocks.find(digest);
      if (hit === undefined) break;
      found.push(hit);
    }
    return found;
  }

  /** Tokens from `start` on that the budgets of this step allow. */
  private affordable(sequence: Sequence, start: number): number {
    const wanted = Math.min(sequence.goal - start, this.tokenBudget, this.limits.longPrefillTokenThreshold);
    const firstScore = Math.max(start, sequence.unscoredStart);
    const numScores = Math.max(0, Math.min(start + wanted, sequence.scoreEnd) - firstScore);
    const fit = numScores > this.rowBudget ? firstScore + this.rowBudget - start : wanted;
    return rowsOf(makeShare(sequence, start, fit)) > this.rowBudget ? fit - 1 : fit;
  }

  /** Tokens that the sequence's blocks and all unreferenced ones could hold beyond what is computed. */
  private roomFor(sequence: Sequence): number {
    return (sequence.numBlocks + this.blocks.available) * this.blocks.blockSize - sequence.numComputed;
  }

  /** Blocks that prefills under way have yet to take. */
  private owedBlocks(): number {
    let owed = 0;
    for (const { goal, numBlocks } of this.running)
      owed += Math.max(0, this.blocks.blocksFor(goal) - numBlocks);
    return owed;
  }

  private countPartial(): number {
    let partial = 0;
    for (const sequence of this.running) {
      if (sequence.numComputed + (sequence.share?.numTokens ?? 0) < sequence.goal) partial++;
    }
    return partial;
  }

  private lastRunning(): Sequence {
    let last: Sequence | undefined;
    for (const sequence of this.running) if (!last || last.isBefore(sequence)) last = sequence;
    if (last === undefined) throw new BugError('no sequence is running');
    return last;
  }

  /** Last block first, so that the start of the sequence stays cached longest. */
  private releaseBlocks(sequence: Sequence): void {
    const table = sequence.blocks;
    for (let place = table.length - 1; place >= 0; place--) this.blocks.release(table[place] as number);
    sequence.numBlocks = 0;
    sequence.numComputed = 0;
  }
}

function remaining(sequence: Sequence): number {
  return sequence.goal - sequence.numComputed;
}

function rowsOf(share: StepShare): number {
  return share.numScores + (share.isDrawing ? 1 : 0);
}

function makeShare(sequence: Sequence, start: number, numTokens: number): StepShare {
  const end = start + numTokens;
  const scoreStart = Math.max(start, sequence.unscoredStart);
  return {
    sequence,
    start,
    numTokens,
    scoreStart,
    numScores: Math.max(0, Math.min(end, sequence.scoreEnd) - scoreStart),
    isDrawing: sequence.request.params.maxTokens > 0 && end === sequence.numTokens,
  };
}
