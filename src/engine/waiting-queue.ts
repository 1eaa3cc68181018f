import type { Sequence } from './sequence.js';

/**
 * Sequences waiting for a place, in the order of `Sequence.isBefore`: a preempted one is older than those that
 * never ran and so stands in front of them. A binary heap whose members know their place: O(log n) to add or
 * remove any of them.
 */
export class WaitingQueue {
  private readonly heap: Sequence[] = [];

  get size(): number {
    return this.heap.length;
  }

  peek(): Sequence | undefined {
    return this.heap[0];
  }

  push(sequence: Sequence): void {
    this.heap.push(sequence);
    this.rise(this.heap.length - 1, sequence);
  }

  delete(sequence: Sequence): void {
    const place = sequence.queueIndex;
    sequence.queueIndex = -1;
    const last = this.heap.pop();
    if (last === undefined || last === sequence) return;
    this.rise(place, last);
    this.sink(last.queueIndex, last);
  }

  private rise(from: number, sequence: Sequence): void {
    let place = from;
    while (place > 0) {
      const parent = this.heap[(place - 1) >> 1] as Sequence;
      if (!sequence.isBefore(parent)) break;
      this.put(place, parent);
      place = (place - 1) >> 1;
    }
    this.put(place, sequence);
  }

  private sink(from: number, sequence: Sequence): void {
    let place = from;
    for (;;) {
      let child = 2 * place + 1;
      const right = this.heap[child + 1];
      if (right?.isBefore(this.heap[child] as Sequence)) child++;
      const smaller = this.heap[child];
      if (!smaller?.isBefore(sequence)) break;
      this.put(place, smaller);
      place = child;
    }
    this.put(place, sequence);
  }

  private put(place: number, sequence: Sequence): void {
    this.heap[place] = sequence;
    sequence.queueIndex = place;
  }
}
