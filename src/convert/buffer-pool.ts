import type { NativeAddon } from '../runtime/addon.js';

/**
 * Memory of layers on their way to a file. The same few sizes come again with every layer of a model, so what was
 * given back is reused, zeroed, and the sum stays that of the layers in flight.
 */
export class BufferPool {
  readonly #addon: NativeAddon;
  readonly #free = new Map<number, ArrayBuffer[]>();

  constructor(addon: NativeAddon) {
    this.#addon = addon;
  }

  /** Zero-filled memory of exactly so many bytes. */
  take(byteLength: number): ArrayBuffer {
    const buffer = this.#free.get(byteLength)?.pop();
    if (buffer === undefined) return this.#addon.allocate(byteLength);
    new Uint8Array(buffer).fill(0);
    return buffer;
  }

  giveBack(buffer: ArrayBuffer): void {
    const free = this.#free.get(buffer.byteLength) ?? [];
    free.push(buffer);
    this.#free.set(buffer.byteLength, free);
  }
}
