import type { FileHandle } from 'node:fs/promises';
import { BugError } from '../errors.js';
import type { QuantizedLayer, WeightSource } from '../graph/ir.js';
import { openWeightFile } from '../hub/weight-file.js';
import { checkResult, floatType } from '../load/read-problems.js';
import { memberParts, type LayerParts } from '../load/stream-weights.js';
import type { ErrorSums } from '../load/weight-meter.js';
import { memberSlices, type MemberSlice } from '../quant/packed-layout.js';
import { resolveScheme } from '../quant/registry.js';
import type { ConvertJob } from './writer.js';

type MeterJob = Pick<ConvertJob, 'plan' | 'runtime' | 'threads'>;

/** One tensor of a layer, whose scheme stores `slice` of the layer's parts. */
interface Member {
  readonly source: WeightSource;
  readonly slice: MemberSlice;
}

/**
 * What quantizing loses, tensor by tensor, from the bytes that are about to be written. Tensors that are not floats
 * in the checkpoint have nothing to be compared with.
 */
export class LayerMeter {
  readonly #job: MeterJob;
  readonly #files = new Map<string, Promise<FileHandle>>();
  readonly #errors = new Map<string, ErrorSums>();

  constructor(job: MeterJob) {
    this.#job = job;
  }

  /** By tensor name, in the order of the plan's layers. */
  get errors(): Readonly<Record<string, ErrorSums>> {
    const found = this.#job.plan.layers.flatMap(({ tensor }) => {
      const sums = this.#errors.get(tensor);
      return sums === undefined ? [] : [[tensor, sums] as const];
    });
    return Object.fromEntries(found);
  }

  /** @throws UserError `invalid_checkpoint` when a weight file cannot be read */
  async measure(layer: QuantizedLayer, parts: LayerParts): Promise<void> {
    if (layer.members.some(({ stored }) => stored !== undefined)) return;
    const { native } = resolveScheme(layer.scheme);
    if (native === null) throw new BugError(`${layer.node} is quantized to ${layer.scheme}`);
    const k = layer.members[0]?.shape[1] ?? 0;
    const rows = layer.members.map(({ shape }) => shape[0] ?? 0);
    for (const [index, slice] of memberSlices(rows, k, native).entries()) {
      const source = layer.members[index];
      if (source !== undefined) await this.#measureMember(layer, parts, { source, slice });
    }
  }

  /** Nothing may be measured any more. */
  async close(): Promise<void> {
    const handles = await Promise.all(this.#files.values());
    await Promise.all(handles.map((handle) => handle.close()));
  }

  async #measureMember(layer: QuantizedLayer, parts: LayerParts, { source, slice }: Member): Promise<void> {
    const { runtime, threads } = this.#job;
    const { native } = resolveScheme(layer.scheme);
    if (native === null) throw new BugError(`${layer.scheme} quantizes nothing that could be measured`);
    const [n = 0, k = 0] = source.shape;
    const { format, groupN, groupK, block } = native;
    const handle = await this.#open(source.file);
    const compared = await runtime.addon.compareWeight({
      source: { fd: handle.fd, offset: source.offset },
      dataType: floatType(source),
      n,
      k,
      format,
      groupN,
      groupK,
      ...(block === undefined ? {} : { block }),
      ...memberParts(layer, parts, slice),
      threads,
    });
    checkResult(source, compared);
    if (compared.status !== 'ok') throw new BugError(`${source.name} was not compared`);
    const { status: _, ...sums } = compared;
    this.#errors.set(source.name, sums);
  }

  #open(file: string): Promise<FileHandle> {
    const identity = this.#job.plan.checkpoint.files.find(({ path }) => path === file);
    const handle = this.#files.get(file) ?? openWeightFile(file, identity);
    this.#files.set(file, handle);
    return handle;
  }
}
