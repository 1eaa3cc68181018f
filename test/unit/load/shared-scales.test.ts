import { writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import path from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import type { Graph, WeightSource } from '../../../src/graph/ir.js';
import { streamWeights, type WeightStream } from '../../../src/load/stream-weights.js';
import { resolveScheme } from '../../../src/quant/registry.js';
import type { QuantScheme } from '../../../src/quant/scheme.js';
import type { NativeAddon } from '../../../src/runtime/addon.js';
import { openAddon } from '../../helpers/addon.js';
import { makeMatrix } from '../../helpers/native-weights.js';
import { createTempDir } from '../../helpers/temp-dir.js';
import { graphOfWeights, listOpenFiles } from '../../helpers/weight-stream.js';

const { addon } = openAddon();
const nvfp4 = resolveScheme('nvfp4');
const K = 48;
const NAN = 0x7fc0;

let folder: string;
beforeEach(async () => {
  folder = await createTempDir();
});

/** A matrix in a file of its own, of one number and its negative. */
function writeMatrix(name: string, rows: number, largest: number): WeightSource {
  const { tensor, bytes } = makeMatrix([rows, K], (at) => (at === rows * K - 1 ? -largest : largest / 2));
  const file = path.join(folder, name);
  writeFileSync(file, bytes);
  return { ...tensor, name, file, offset: 0, byteLength: bytes.length };
}

/** A graph of some layers without nodes, each with its members and all that are fused with them. */
function graphOf(
  ...layers: readonly {
    readonly members: readonly WeightSource[];
    readonly fused: readonly WeightSource[];
    readonly scheme?: QuantScheme;
  }[]
): Graph {
  const initializers = layers.flatMap(({ members, fused, scheme = nvfp4 }, index) => {
    const shape = [members.reduce((sum, each) => sum + (each.shape[0] as number), 0), K];
    const data = { kind: 'weight', members } as const;
    const weight = { name: `W${index}`, dataType: 'bfloat16', shape, data } as const;
    const request = { node: `n${index}`, x: 'x', bias: '', output: 'y', compute: 'float32' } as const;
    return scheme.emit({ ...request, weight, members, fused }).initializers;
  });
  return graphOfWeights(initializers);
}

/** The tensor scales of a layer. */
async function scalesOf(graph: Graph, name: string, changes: Partial<WeightStream> = {}): Promise<number[]> {
  const initializers = await streamWeights(graph, {
    addon,
    threads: 2,
    open: (file) => open(file),
    onProgress: () => undefined,
    ...changes,
  });
  const scales = initializers.find((each) => each.name === `${name}.scales`);
  return [...new Float32Array(scales?.memory ?? new ArrayBuffer())];
}

function scaleFor(largest: number): number {
  return Math.fround(largest / 2688);
}

describe('the tensor scale of fused matrices', () => {
  it('is that of the largest magnitude of all, in whatever file and whatever became of it', async () => {
    const q = writeMatrix('q', 17, 3);
    const k = writeMatrix('k', 5, 40);
    const v = writeMatrix('v', 16, 0.5);
    const fused = [q, k, v];
    expect(await scalesOf(graphOf({ members: fused, fused }), 'W0')).toEqual(Array(3).fill(scaleFor(40)));
    expect(await scalesOf(graphOf({ members: [q], fused }, { members: [v], fused }), 'W1')).toEqual([
      scaleFor(40),
    ]);
    expect(listOpenFiles(folder)).toEqual([]);
  });

  it('is a matrix’s own where it stands alone, and where the scheme fuses none', async () => {
    const q = writeMatrix('q', 17, 3);
    const k = writeMatrix('k', 5, 40);
    const graph = graphOf({ members: [q], fused: [q] }, { members: [k], fused: [k] });
    expect(await scalesOf(graph, 'W0')).toEqual([scaleFor(3)]);
    const scheme = resolveScheme('fp8_per_tensor');
    const own = await scalesOf(graphOf({ members: [q, k], fused: [q, k], scheme }), 'W0');
    expect(own).toEqual([Math.fround(3 / 448), Math.fround(40 / 448)]);
  });

  it('is 1 where all are zeros', async () => {
    const fused = [writeMatrix('q', 17, 0), writeMatrix('k', 5, 0)];
    expect(await scalesOf(graphOf({ members: fused, fused }), 'W0')).toEqual([1, 1]);
  });

  it('reads each matrix once for it, and once more to quantize', async () => {
    const fused = [writeMatrix('q', 17, 3), writeMatrix('k', 5, 40), writeMatrix('v', 16, 0.5)];
    const calls: string[] = [];
    const counting: NativeAddon = {
      ...addon,
      measureMagnitude: (job) => {
        calls.push(`measure ${job.n}`);
        return addon.measureMagnitude(job);
      },
      quantize: (job) => {
        calls.push(`quantize ${job.n} ${job.tensorScale}`);
        return addon.quantize(job);
      },
    };
    await scalesOf(graphOf({ members: fused, fused }), 'W0', { addon: counting });
    expect(calls.slice(0, 3)).toEqual(['measure 17', 'measure 5', 'measure 16']);
    expect(new Set(calls.slice(3))).toEqual(
      new Set([17, 5, 16].map((rows) => `quantize ${rows} ${scaleFor(40)}`)),
    );
    expect(calls).toHaveLength(6);
  });

  it('names the matrix that holds a NaN, though it is not quantized itself', async () => {
    const q = writeMatrix('q', 17, 3);
    const k = writeMatrix('k', 5, 40);
    writeFileSync(k.file, new Uint16Array(5 * K).fill(NAN, 2 * K + 7));
    for (let attempt = 0; attempt < 10; attempt++) {
      await expect(scalesOf(graphOf({ members: [q], fused: [q, k] }), 'W0')).rejects.toMatchObject({
        code: 'non_finite_weight',
        message: 'k holds a NaN or infinity at row 2, column 7.',
      });
    }
    expect(listOpenFiles(folder)).toEqual([]);
  });

  it('names the file that ends early', async () => {
    const q = writeMatrix('q', 17, 3);
    const k = writeMatrix('k', 5, 40);
    writeFileSync(k.file, new Uint16Array(5 * K - 1));
    await expect(scalesOf(graphOf({ members: [q], fused: [q, k] }), 'W0')).rejects.toMatchObject({
      code: 'invalid_checkpoint',
      message: `Could not read k from ${k.file}: the file ended early.`,
    });
  });

  it('is not looked for in another matrix once loading is aborted', async () => {
    const fused = [writeMatrix('q', 17, 3), writeMatrix('k', 5, 40), writeMatrix('v', 16, 0.5)];
    const abort = new AbortController();
    const reason = new Error('stop');
    const calls: string[] = [];
    const aborting: NativeAddon = {
      ...addon,
      measureMagnitude: (job) => {
        calls.push('measure');
        abort.abort(reason);
        return addon.measureMagnitude(job);
      },
      quantize: (job) => {
        calls.push('quantize');
        return addon.quantize(job);
      },
    };
    const loading = scalesOf(graphOf({ members: fused, fused }), 'W0', {
      addon: aborting,
      signal: abort.signal,
    });
    await expect(loading).rejects.toBe(reason);
    expect(calls).toEqual(['measure']);
    expect(listOpenFiles(folder)).toEqual([]);
  });

  it('is found of matrices that are read whole: those their file has transposed', async () => {
    const q = writeMatrix('q', 17, 3);
    const k = { ...writeMatrix('k', 5, 40), transposed: true } as const;
    const fused = [q, k];
    expect(await scalesOf(graphOf({ members: fused, fused }), 'W0')).toEqual(Array(2).fill(scaleFor(40)));
  });
});
