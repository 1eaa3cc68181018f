// What the kernels gain over ONNX Runtime: a checkpoint on ONNX Runtime's own float32 MatMul, then under schemes, by the
// same method in the same run; everything else about speed is `fdq bench`.
// Usage: [THREADS=n] node test/bench/float-speed.mjs CHECKPOINT [scheme ...]; needs `npm run build`.
// Prints one JSON object a line.
import os from 'node:os';
import process from 'node:process';
import { loadModel } from '../../dist/load/load-model.js';
import { loadFloatBaseline } from './float-baseline.mjs';

const [model, ...schemes] = process.argv.slice(2);
const threads = Number(process.env.THREADS ?? os.availableParallelism());
const PREFILL = 512;
const DECODE_STEPS = 48;
const BLOCKS = 64;

function packed(chunks) {
  const queryStarts = [0];
  for (const { ids } of chunks) queryStarts.push(queryStarts.at(-1) + ids.length);
  return {
    tokenIds: Int32Array.from(chunks.flatMap(({ ids }) => ids)),
    positions: Int32Array.from(chunks.flatMap(({ ids, start }) => ids.map((_, i) => start + i))),
    queryStarts: Int32Array.from(queryStarts),
    contextLengths: Int32Array.from(chunks.map(({ ids, start }) => start + ids.length)),
    blockTables: Int32Array.from(
      chunks.flatMap((_, s) => Array.from({ length: BLOCKS }, (__, i) => s * BLOCKS + i)),
    ),
    blockTableStride: BLOCKS,
    logitIndices: Int32Array.from(queryStarts.slice(1).map((end) => end - 1)),
  };
}

const ids = (count) => Array.from({ length: count }, (_, i) => (i * 7919 + 13) % 1000);

async function seconds(work) {
  const start = process.hrtime.bigint();
  await work();
  return Number(process.hrtime.bigint() - start) / 1e9;
}

/** Of the best of the repeats; with one thread, processor time says more than the clock of a busy machine. */
async function prefill(runner, repeats = 3) {
  let time = Infinity;
  let cpu = Infinity;
  for (let i = 0; i < repeats; i++) {
    const before = process.cpuUsage();
    time = Math.min(time, await seconds(() => runner.logits(packed([{ ids: ids(PREFILL), start: 0 }]))));
    const { user, system } = process.cpuUsage(before);
    cpu = Math.min(cpu, (user + system) / 1e6);
  }
  return { prefill512: round(PREFILL / time), prefillCpuSeconds: round(cpu, 3) };
}

/** Tokens/s of one sequence; the best of 4 stretches. */
async function decode(runner) {
  let best = 0;
  for (let stretch = 0; stretch < 4; stretch++) {
    const time = await seconds(async () => {
      for (let step = 0; step < DECODE_STEPS / 4; step++) {
        await runner.logits(packed([{ ids: [step + 5], start: step + stretch * 12 }]));
      }
    });
    best = Math.max(best, DECODE_STEPS / 4 / time);
  }
  return best;
}

const memory = {
  utilization: 0.9,
  numBlocks: BLOCKS,
  maxBatchedTokens: PREFILL,
  maxNumSeqs: 1,
  maxModelLen: 1024,
};
const quiet = { phase: () => undefined, warn: (line) => process.stderr.write(`${line}\n`) };
const round = (value, digits = 1) => Number(value.toFixed(digits));

console.log(JSON.stringify({ cpu: os.cpus()[0].model, threads }));
const options = (quantization) => ({
  model,
  quantization,
  threads,
  memory,
  dtype: process.env.DTYPE ?? 'auto',
  kvCacheDtype: 'auto',
  isa: process.env.FDQ_ISA,
});

async function measure(scheme, runner, more = {}) {
  await decode(runner);
  const figures = { ...(await prefill(runner)), decode: round(await decode(runner)) };
  console.log(JSON.stringify({ scheme, ...more, ...figures }));
  await runner.close();
}

await measure('float32-matmul', await loadFloatBaseline(options('none'), memory));
for (const scheme of schemes.length > 0 ? schemes : ['wint8', 'wint4', 'block_wise_fp8']) {
  const { runner, isa, arithmetic } = await loadModel(options(scheme), quiet);
  await measure(scheme, runner, { isa, ...arithmetic });
}
