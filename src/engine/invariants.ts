import { BugError } from '../errors.js';
import type { BatchEngine } from './engine.js';
import type { Sequence } from './sequence.js';

function expectEqual(actual: number, expected: number, what: string): void {
  if (actual !== expected) throw new BugError(`${what}: ${actual} instead of ${expected}`);
}

/** Counts the references to each block; a block still to be written belongs to one sequence. */
function checkSequence(engine: BatchEngine, sequence: Sequence, references: Map<number, number>): void {
  const { blocks } = engine;
  const name = `request ${sequence.request.id} choice ${sequence.index}`;
  if (sequence.phase !== 'running') expectEqual(sequence.numBlocks, 0, `blocks of ${sequence.phase} ${name}`);
  expectEqual(new Set(sequence.blocks).size, sequence.numBlocks, `distinct blocks of ${name}`);
  if (sequence.numBlocks < blocks.blocksFor(sequence.numComputed)) {
    throw new BugError(`${name} has ${sequence.numBlocks} blocks for ${sequence.numComputed} tokens`);
  }
  for (const [place, block] of sequence.blocks.entries()) {
    references.set(block, (references.get(block) ?? 0) + 1);
    const isFull = (place + 1) * blocks.blockSize <= sequence.numComputed;
    if (!isFull)
      expectEqual(blocks.refCount(block), 1, `references to block ${block}, being written by ${name}`);
  }
}

/** Throws BugError when the books of an engine between two steps do not balance. For tests: walks everything. */
export function checkInvariants(engine: BatchEngine): void {
  const { blocks, scheduler, lifecycle } = engine;
  const references = new Map<number, number>();
  let running = 0;
  let waiting = 0;
  for (const request of lifecycle.live.values()) {
    for (const sequence of request.sequences) {
      checkSequence(engine, sequence, references);
      if (sequence.phase === 'running') running++;
      if (sequence.phase === 'waiting') waiting++;
      if (scheduler.running.has(sequence) !== (sequence.phase === 'running')) {
        throw new BugError(`request ${request.id} choice ${sequence.index} is ${sequence.phase}`);
      }
    }
  }
  expectEqual(scheduler.running.size, running, 'running sequences');
  expectEqual(scheduler.waiting.size, waiting, 'waiting sequences');
  for (let block = 0; block < blocks.numBlocks; block++) {
    expectEqual(blocks.refCount(block), references.get(block) ?? 0, `references to block ${block}`);
  }
  expectEqual(blocks.used, references.size, 'used blocks');
  expectEqual(blocks.free + blocks.used + blocks.cached, blocks.numBlocks, 'all blocks');
  blocks.audit();
  const queued = [...lifecycle.queued];
  expectEqual(
    queued.reduce((sum, { prompt }) => sum + prompt.length, 0),
    lifecycle.queuedTokens,
    'queued prompt tokens',
  );
  for (const request of queued) {
    if (!lifecycle.live.has(request.id)) throw new BugError(`request ${request.id} is queued but not live`);
  }
  const { accepted, finished, cancelled, failed } = lifecycle.counters;
  expectEqual(finished + cancelled + failed + lifecycle.live.size, accepted, 'accepted requests');
}
