import { describe, expect, it } from 'vitest';
import { BlockManager, PrefixHasher } from '../../../src/engine/block-manager.js';
import { OutputQueue } from '../../../src/engine/output-queue.js';
import { Scheduler, type SchedulerLimits, type StepPlan } from '../../../src/engine/scheduler.js';
import { RequestState, Sequence } from '../../../src/engine/sequence.js';
import type { SamplingParams } from '../../../src/engine/types.js';
import { WaitingQueue } from '../../../src/engine/waiting-queue.js';
import { prompt, request } from './harness.js';
import { fc } from '../../helpers/properties.js';

const BLOCK_SIZE = 4;

function sequence(
  length: number,
  ordinal: number,
  changes: Partial<SamplingParams> = {},
  priority = 0,
): Sequence {
  const source = request(prompt(length, ordinal), changes, { priority });
  const state = new RequestState(source, new OutputQueue(() => undefined), 0, 100);
  const made = new Sequence(state, 0, ordinal, 0n);
  state.sequences.push(made);
  return made;
}

function scheduler(numBlocks: number, limits: Partial<SchedulerLimits> = {}): [Scheduler, BlockManager] {
  const blocks = new BlockManager(numBlocks, BLOCK_SIZE);
  const all: SchedulerLimits = {
    maxNumSeqs: 8,
    maxNumBatchedTokens: 64,
    maxLogitRows: 64,
    longPrefillTokenThreshold: Infinity,
    maxNumPartialPrefills: Infinity,
    ...limits,
  };
  return [new Scheduler(all, blocks, new PrefixHasher(BLOCK_SIZE)), blocks];
}

/** Takes the step as done: every drawing sequence gets a token. */
function complete(made: Scheduler, plan: StepPlan): void {
  for (const share of plan.shares) {
    made.commit(share);
    for (let i = 0; i < share.numScores; i++) share.sequence.request.promptScores?.push(null);
    if (share.isDrawing) share.sequence.append(1);
  }
}

function summary(plan: StepPlan): number[][] {
  return plan.shares.map(({ sequence: { ordinal }, start, numTokens }) => [ordinal, start, numTokens]);
}

describe('Scheduler', () => {
  it('puts decodes first, then prefills under way, then waiting ones', () => {
    const [made] = scheduler(64, { maxNumBatchedTokens: 10 });
    made.add(sequence(4, 0));
    made.add(sequence(18, 1));
    made.add(sequence(3, 2));
    const plans = [0, 1, 2].map(() => {
      const plan = made.schedule();
      complete(made, plan);
      return summary(plan);
    });
    expect(plans).toEqual([
      [
        [0, 0, 4],
        [1, 0, 6],
      ],
      [
        [0, 4, 1],
        [1, 6, 9],
      ],
      [
        [0, 5, 1],
        [1, 15, 3],
        [2, 0, 3],
      ],
    ]);
  });

  it('lets the youngest wait with its blocks until an older one needs them', () => {
    const [made, blocks] = scheduler(4);
    const [old, young] = [sequence(3, 0), sequence(4, 1)];
    made.add(old);
    made.add(young);
    for (let step = 1; step <= 5; step++) complete(made, made.schedule());
    expect([old.numComputed, young.numComputed, blocks.available]).toEqual([7, 8, 0]);
    const stalled = made.schedule();
    expect(summary(stalled)).toEqual([[0, 7, 1]]);
    expect([stalled.numPreempted, young.numBlocks]).toEqual([0, 2]);
    complete(made, stalled);
    const preempting = made.schedule();
    expect(summary(preempting)).toEqual([[0, 8, 1]]);
    expect([preempting.numPreempted, young.phase, young.numBlocks, young.numOutput]).toEqual([
      1,
      'waiting',
      0,
      5,
    ]);
  });

  interface PreemptingCase {
    readonly does: string;
    readonly limits: Partial<SchedulerLimits>;
    readonly length: number;
    readonly changes: Partial<SamplingParams>;
    readonly numTokens: number;
    readonly admittedNext: readonly number[];
  }

  it.each<PreemptingCase>([
    {
      does: 'gives the token of a preempted sequence to the prefill',
      limits: { maxNumBatchedTokens: 3 },
      length: 16,
      changes: {},
      numTokens: 2,
      admittedNext: [],
    },
    {
      does: 'gives the row of a preempted sequence to the scores',
      limits: { maxLogitRows: 3 },
      length: 16,
      changes: { promptLogprobs: 0 },
      numTokens: 2,
      admittedNext: [],
    },
    {
      does: 'admits nobody in a step that preempts',
      limits: { maxNumBatchedTokens: 3 },
      length: 9,
      changes: {},
      numTokens: 1,
      admittedNext: [7],
    },
  ])('$does', ({ limits, length, changes, numTokens, admittedNext }) => {
    const [made] = scheduler(10, { ...limits, maxNumSeqs: 3 });
    const young = [sequence(1, 5), sequence(1, 6)];
    for (const each of young) made.add(each);
    complete(made, made.schedule());
    for (let step = 0; step < 3; step++) complete(made, made.schedule());
    made.add(sequence(length, 0, changes));
    for (let step = 0; step < 8; step++) complete(made, made.schedule());
    made.add(sequence(1, 7, {}, -1));
    const plan = made.schedule();
    // Both young ones take their fourth block, then the older its third: back come a token and a place.
    expect(summary(plan)).toEqual([
      [5, 12, 1],
      [0, 8, numTokens],
    ]);
    expect([plan.numPreempted, young[1]!.phase, plan.admissions]).toEqual([1, 'waiting', []]);
    complete(made, plan);
    expect(made.schedule().admissions.map((admission) => admission.sequence.ordinal)).toEqual(admittedNext);
  });

  it('limits rows: a draw that does not fit waits', () => {
    const [made] = scheduler(64, { maxLogitRows: 2, maxNumSeqs: 2, maxNumBatchedTokens: 64 });
    made.add(sequence(6, 0, { promptLogprobs: 0 }));
    const rows = [0, 1, 2].map(() => {
      const plan = made.schedule();
      complete(made, plan);
      return plan.shares.map(({ numScores, isDrawing }) => [numScores, isDrawing]);
    });
    expect(rows.flat()).toEqual([
      [2, false],
      [2, false],
      [1, true],
    ]);
    expect([...made.running][0]!.numOutput).toBe(1);
  });

  it('refuses to plan the impossible', () => {
    const [made] = scheduler(2);
    made.add(sequence(12, 0));
    expect(() => made.schedule()).toThrow('needs 3 KV blocks and is alone');
  });
});

describe('WaitingQueue', () => {
  it('is in order whatever is added and removed', () => {
    const action = fc.record({
      isRemoval: fc.boolean(),
      priority: fc.integer({ min: -2, max: 2 }),
      pick: fc.nat(),
    });
    fc.assert(
      fc.property(fc.array(action, { maxLength: 60 }), (actions) => {
        const queue = new WaitingQueue();
        const members: Sequence[] = [];
        for (const [ordinal, { isRemoval, priority, pick }] of actions.entries()) {
          if (isRemoval && members.length > 0) queue.delete(members.splice(pick % members.length, 1)[0]!);
          else {
            const added = sequence(1, ordinal, {}, priority);
            members.push(added);
            queue.push(added);
          }
          expect(queue.size).toBe(members.length);
          members.sort((a, b) => (a.isBefore(b) ? -1 : 1));
          expect(queue.peek()).toBe(members[0]);
        }
        for (const member of members) {
          expect(queue.peek()).toBe(member);
          queue.delete(member);
          expect(member.queueIndex).toBe(-1);
        }
        expect(queue.size).toBe(0);
      }),
      { numRuns: 300 },
    );
  });
});
