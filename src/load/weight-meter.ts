import { open, type FileHandle } from 'node:fs/promises';
import { BugError } from '../errors.js';
import type { WeightSource } from '../graph/ir.js';
import type { WeightFiles } from './plan.js';
import { findMagnitude } from './open-floats.js';
import { checkResult, floatType } from './read-problems.js';
import { readTransposed } from './read-transposed.js';
import { memberSlices } from '../quant/packed-layout.js';
import type { QuantScheme } from '../quant/scheme.js';
import type { NativeAddon, QuantizeJob, WeightError } from '../runtime/addon.js';

export interface MeterOptions {
  readonly addon: NativeAddon;
  readonly threads: number;
  /** Opens a weight file whose header was checked; the meter closes it. */
  readonly open?: (file: string) => Promise<FileHandle>;
  readonly inline?: WeightFiles['inline'];
}

/** Sums behind a `LayerError`; those of several layers add up. */
export type ErrorSums = Omit<WeightError, 'status'>;

/** Distance of the restored matrix r from the original w, from the bytes the kernels read. */
export interface LayerError {
  /** ‖w - r‖ / ‖w‖, Frobenius norms. */
  readonly frobenius: number;
  /** Largest |w - r|. */
  readonly maxAbs: number;
  /** 10 log10(‖w‖² / ‖w - r‖²); Infinity when nothing is lost. */
  readonly sqnrDb: number;
  /** Of the angle between w and r as vectors. */
  readonly cosine: number;
  /** Originals beyond the format's largest value by more than half of its last step. */
  readonly saturated: number;
  /** Scales (of the narrowest kind the scheme has) that restore zeros only: a 0 was replaced by 1. */
  readonly zeroScales: number;
}

type Part = 'weight' | 'scales' | 'blockScales';

/**
 * Measures what quantizing a matrix loses, with the quantizer and the bytes that serving uses. Takes the memory of
 * one quantized matrix, the largest measured so far, and of 128 rows of the original for each thread; of all of the
 * original where a file has it transposed or inside of a model.
 */
export class WeightMeter {
  readonly #options: MeterOptions;
  readonly #files = new Map<string, FileHandle>();
  readonly #buffers = new Map<Part, ArrayBuffer>();
  /** Largest magnitudes of fused tensors: each is asked for once for every one of them. */
  readonly #magnitudes = new Map<WeightSource, number>();
  /** The last matrix that was not read in bands: each is measured once for every candidate. */
  #whole: { readonly source: WeightSource; readonly bytes: Uint8Array<ArrayBuffer> } | undefined;

  constructor(options: MeterOptions) {
    this.#options = options;
  }

  /**
   * Quantizes one matrix, reads the original again and compares. One call at a time.
   * @param fused tensors, this one among them, that the scheme may give one tensor scale
   * @throws UserError `non_finite_weight` naming tensor, row and column; `invalid_checkpoint` when the file cannot
   *   be read
   */
  async measure(
    source: WeightSource,
    scheme: QuantScheme,
    fused: readonly WeightSource[] = [source],
  ): Promise<ErrorSums> {
    const { native } = scheme;
    if (native === null) throw new BugError(`${scheme.name} quantizes nothing that could be measured`);
    const [n = 0, k = 0] = source.shape;
    const [slice] = memberSlices([n], k, native);
    if (slice === undefined) throw new BugError(`${source.name} has no rows`);
    const weight = new Uint8Array(this.#reserve('weight', slice.weightBytes), 0, slice.weightBytes);
    const scales = new Float32Array(
      this.#reserve('scales', slice.scaleCount * Float32Array.BYTES_PER_ELEMENT),
      0,
      slice.scaleCount,
    );
    const tensorScale = await this.#shareScale(scheme, fused);
    const job = {
      source: await this.#locate(source),
      dataType: floatType(source),
      n,
      k,
      ...native,
      weight,
      scales,
      ...(native.block === undefined
        ? {}
        : {
            blockScales: new Uint8Array(
              this.#reserve('blockScales', slice.blockScaleBytes),
              0,
              slice.blockScaleBytes,
            ),
          }),
      threads: this.#options.threads,
    };
    const { addon } = this.#options;
    const shared = tensorScale === undefined ? {} : { tensorScale };
    checkResult(source, await addon.quantize({ ...job, ...shared, packed: true }));
    const compared = await addon.compareWeight(job);
    checkResult(source, compared);
    if (compared.status !== 'ok') throw new BugError(`${source.name} was not compared`);
    const { status: _, ...sums } = compared;
    return sums;
  }

  async close(): Promise<void> {
    await Promise.all([...this.#files.values()].map((handle) => handle.close()));
    this.#files.clear();
    this.#whole = undefined;
  }

  /** As streamWeights does. */
  async #shareScale(
    { findTensorScale }: QuantScheme,
    fused: readonly WeightSource[],
  ): Promise<number | undefined> {
    if (findTensorScale === undefined || fused.length < 2) return undefined;
    const magnitudes: number[] = [];
    for (const source of fused) {
      const known = this.#magnitudes.get(source) ?? (await this.#measureMagnitude(source));
      this.#magnitudes.set(source, known);
      magnitudes.push(known);
    }
    return findTensorScale(Math.max(...magnitudes));
  }

  async #measureMagnitude(source: WeightSource): Promise<number> {
    const [n = 0, k = 0] = source.shape;
    const { addon, threads } = this.#options;
    const matrix = { source: await this.#locate(source), dataType: floatType(source), n, k };
    return findMagnitude(addon, source, { ...matrix, threads });
  }

  /** Where the matrix lies as [n, k]. */
  async #locate(source: WeightSource): Promise<QuantizeJob['source']> {
    const { inline } = this.#options;
    const isInline = source.file === inline?.file;
    if (!isInline && source.transposed !== true) {
      return { fd: (await this.#open(source.file)).fd, offset: source.offset };
    }
    if (this.#whole?.source === source) return { bytes: this.#whole.bytes };
    this.#whole = undefined;
    const { offset, byteLength } = source;
    const stored = isInline ? inline.bytes.subarray(offset, offset + byteLength) : undefined;
    const bytes = new Uint8Array(byteLength);
    if (source.transposed === true) {
      const from = stored ?? (await this.#open(source.file)).fd;
      await readTransposed(this.#options.addon, source, from, bytes);
    } else if (stored !== undefined) bytes.set(stored);
    this.#whole = { source, bytes };
    return { bytes };
  }

  async #open(file: string): Promise<FileHandle> {
    const known = this.#files.get(file);
    if (known !== undefined) return known;
    const handle = await (this.#options.open ?? open)(file);
    this.#files.set(file, handle);
    return handle;
  }

  #reserve(part: Part, bytes: number): ArrayBuffer {
    const known = this.#buffers.get(part);
    if (known !== undefined && known.byteLength >= bytes) return known;
    const buffer = this.#options.addon.allocate(Math.max(1, bytes));
    this.#buffers.set(part, buffer);
    return buffer;
  }
}

/** The figures people compare; a matrix of zeros that stays one has lost nothing. */
export function toLayerError(sums: ErrorSums): LayerError {
  const { sumW2, sumR2, sumWr, sumE2, maxAbs, saturated, zeroScales } = sums;
  const ratio = sumE2 === 0 ? 0 : sumE2 / sumW2;
  const norms = Math.sqrt(sumW2) * Math.sqrt(sumR2);
  return {
    frobenius: Math.sqrt(ratio),
    maxAbs,
    sqnrDb: ratio === 0 ? Infinity : -10 * Math.log10(ratio),
    cosine: norms === 0 ? Number(sumW2 === sumR2) : Math.min(1, sumWr / norms),
    saturated,
    zeroScales,
  };
}

/** Sums of several matrices taken as one. */
export function addSums(all: readonly ErrorSums[]): ErrorSums {
  const sum = (value: (sums: ErrorSums) => number): number =>
    all.reduce((total, sums) => total + value(sums), 0);
  return {
    sumW2: sum(({ sumW2 }) => sumW2),
    sumR2: sum(({ sumR2 }) => sumR2),
    sumWr: sum(({ sumWr }) => sumWr),
    sumE2: sum(({ sumE2 }) => sumE2),
    maxAbs: all.reduce((largest, { maxAbs }) => Math.max(largest, maxAbs), 0),
    saturated: sum(({ saturated }) => saturated),
    zeroScales: sum(({ zeroScales }) => zeroScales),
  };
}
