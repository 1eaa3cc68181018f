import { describe, expect, it } from 'vitest';
import { BlockManager, PrefixHasher } from '../../../src/engine/block-manager.js';

describe('BlockManager', () => {
  it('gives every block once, then none', () => {
    const blocks = new BlockManager(5, 4);
    const taken = Array.from({ length: 5 }, () => blocks.allocate());
    expect(new Set(taken).size).toBe(5);
    expect([blocks.free, blocks.used, blocks.cached, blocks.available]).toEqual([0, 5, 0, 0]);
    expect(() => blocks.allocate()).toThrow('all 5 KV blocks are in use');
    blocks.release(taken[2]!);
    expect(blocks.allocate()).toBe(taken[2]);
    blocks.audit();
  });

  it('keeps published blocks until nothing free is left, then forgets the least recently used', () => {
    const blocks = new BlockManager(4, 4);
    const [a, b, c] = [blocks.allocate(), blocks.allocate(), blocks.allocate()];
    for (const [block, name] of [
      [a, 'a'],
      [b, 'b'],
      [c, 'c'],
    ] as const)
      blocks.publish(block, name);
    for (const block of [b, a, c]) blocks.release(block);
    expect([blocks.free, blocks.used, blocks.cached]).toEqual([1, 0, 3]);
    blocks.share(blocks.find('b')!);
    blocks.release(b);
    const unused = blocks.allocate();
    expect([a, b, c]).not.toContain(unused);
    expect([blocks.allocate(), blocks.allocate(), blocks.allocate()]).toEqual([a, c, b]);
    expect(blocks.find('a')).toBeUndefined();
    blocks.audit();
  });

  it('hands a free block out before a cached one, whichever was released first', () => {
    const blocks = new BlockManager(2, 4);
    const [cached, plain] = [blocks.allocate(), blocks.allocate()];
    blocks.publish(cached, 'x');
    blocks.release(cached);
    blocks.release(plain);
    expect(blocks.allocate()).toBe(plain);
    expect(blocks.find('x')).toBe(cached);
  });

  it('counts references and refuses a release too many', () => {
    const blocks = new BlockManager(2, 4);
    const block = blocks.allocate();
    blocks.publish(block, 'x');
    blocks.share(block);
    blocks.release(block);
    expect([blocks.refCount(block), blocks.used]).toEqual([1, 1]);
    blocks.release(block);
    expect([blocks.refCount(block), blocks.cached]).toEqual([0, 1]);
    expect(() => blocks.release(block)).toThrow('released more often than taken');
  });

  it('keeps the first of two blocks with the same contents', () => {
    const blocks = new BlockManager(3, 4);
    const [first, second] = [blocks.allocate(), blocks.allocate()];
    blocks.publish(first, 'same');
    blocks.publish(second, 'same');
    expect(blocks.find('same')).toBe(first);
    blocks.release(second);
    expect([blocks.free, blocks.cached]).toEqual([2, 0]);
    blocks.audit();
  });

  it('notices books that do not balance', () => {
    const blocks = new BlockManager(3, 4);
    blocks.publish(0, 'never allocated');
    expect(() => blocks.audit()).toThrow();
  });
});

describe('PrefixHasher', () => {
  const hasher = new PrefixHasher(4);
  const tokens = Int32Array.from([1, 2, 3, 4, 5, 6, 7, 8, 9]);

  it('names full blocks by everything before them', () => {
    const chain = hasher.chain(hasher.root('open', ''), tokens);
    expect(chain).toHaveLength(2);
    const other = Int32Array.from(tokens);
    other[0] = 2;
    const changed = hasher.chain(hasher.root('open', ''), other);
    expect(changed[0]).not.toBe(chain[0]);
    expect(changed[1]).not.toBe(chain[1]);
    expect(hasher.extend(chain[0]!, tokens.subarray(4, 8))).toBe(chain[1]);
  });

  it('keeps domains and salts apart', () => {
    const roots = [
      hasher.root('open', ''),
      hasher.root('salted', ''),
      hasher.root('salted', 'a'),
      hasher.root('private', 'a'),
    ];
    expect(new Set(roots).size).toBe(4);
    expect(hasher.chain(roots[1]!, tokens)[0]).not.toBe(hasher.chain(roots[2]!, tokens)[0]);
  });
});
