import { describe, expect, it } from 'vitest';
import { OutputQueue } from '../../../src/engine/output-queue.js';
import type { ChoiceDelta } from '../../../src/engine/types.js';

function delta(index: number, id: number, rest: Partial<ChoiceDelta> = {}): ChoiceDelta {
  return { index, tokenIds: [id], text: `${id} `, finishReason: null, stopReason: null, ...rest };
}

describe('OutputQueue', () => {
  it('keeps one merged delta for each choice', async () => {
    const queue = new OutputQueue(() => undefined);
    const logprobs = (id: number) => ({ logprobs: [{ id, logprob: -1, rank: 1, top: [] }] });
    queue.pushDelta(delta(0, 1, logprobs(1)));
    queue.pushDelta(delta(1, 2));
    queue.pushDelta(delta(0, 3, { ...logprobs(3), finishReason: 'stop', stopReason: 'x' }));
    queue.end();
    expect((await queue.next()).value).toEqual({
      kind: 'delta',
      choice: {
        index: 0,
        tokenIds: [1, 3],
        text: '1 3 ',
        logprobs: [logprobs(1).logprobs[0], logprobs(3).logprobs[0]],
        finishReason: 'stop',
        stopReason: 'x',
      },
    });
    expect((await queue.next()).value).toEqual({ kind: 'delta', choice: delta(1, 2) });
    expect((await queue.next()).done).toBe(true);
  });

  it('serves waiting readers in order', async () => {
    const queue = new OutputQueue(() => undefined);
    const reads = [queue.next(), queue.next(), queue.next(), queue.next()];
    queue.pushStarted(3);
    queue.pushPrompt([null]);
    queue.pushDelta(delta(0, 1));
    queue.end();
    expect((await Promise.all(reads)).map(({ value }) => value?.kind)).toEqual([
      'started',
      'prompt',
      'delta',
      undefined,
    ]);
  });

  it('gives what is unread, then the error once, then the end', async () => {
    const queue = new OutputQueue(() => undefined);
    queue.pushDelta(delta(0, 1));
    queue.fail(new Error('broken'));
    expect((await queue.next()).value).toMatchObject({ kind: 'delta' });
    await expect(queue.next()).rejects.toThrow('broken');
    expect((await queue.next()).done).toBe(true);
  });

  it('rejects one waiting reader and ends the others', async () => {
    const queue = new OutputQueue(() => undefined);
    const reads = [queue.next(), queue.next()];
    queue.fail(new Error('broken'));
    await expect(reads[0]).rejects.toThrow('broken');
    expect((await reads[1])!.done).toBe(true);
  });

  it('forgets everything when the reader leaves', async () => {
    let returned = 0;
    const queue = new OutputQueue(() => returned++);
    queue.pushDelta(delta(0, 1));
    await queue.return();
    expect(returned).toBe(1);
    queue.fail(new Error('late'));
    expect((await queue.next()).done).toBe(true);
  });
});
