import type { StepBatch } from '../runtime/model-runner.js';
import { SamplingColumns } from './sampler.js';
import type { StepShare } from './sequence.js';

export interface StepBatchLimits {
  readonly maxNumSeqs: number;
  readonly maxNumBatchedTokens: number;
  readonly maxLogitRows: number;
  readonly vocabSize: number;
}

/** Packs the shares of a step. Arrays are reused: a batch is valid until the next `build`. */
export class StepBatchBuilder {
  private readonly tokenIds: Int32Array;
  private readonly positions: Int32Array;
  private readonly queryStarts: Int32Array;
  private readonly contextLengths: Int32Array;
  private blockTables = new Int32Array(0);
  private readonly logitIndices: Int32Array;
  private readonly sampling: SamplingColumns;
  private numRows = 0;

  constructor(limits: StepBatchLimits, eosTokenIds: ReadonlySet<number>) {
    this.tokenIds = new Int32Array(limits.maxNumBatchedTokens);
    this.positions = new Int32Array(limits.maxNumBatchedTokens);
    this.queryStarts = new Int32Array(limits.maxNumSeqs + 1);
    this.contextLengths = new Int32Array(limits.maxNumSeqs);
    this.logitIndices = new Int32Array(limits.maxLogitRows);
    this.sampling = new SamplingColumns(limits.vocabSize, limits.maxLogitRows, eosTokenIds);
  }

  /** Rows are in the order of the shares: the scores of each, then its draw. */
  build(shares: readonly StepShare[]): StepBatch {
    const stride = shares.reduce((longest, share) => Math.max(longest, share.sequence.numBlocks), 0);
    if (shares.length * stride > this.blockTables.length) {
      this.blockTables = new Int32Array(Math.max(shares.length * stride, 2 * this.blockTables.length));
    }
    this.numRows = 0;
    this.sampling.clear();
    let numTokens = 0;
    for (const [place, share] of shares.entries()) {
      const { sequence, start } = share;
      const end = start + share.numTokens;
      sequence.copyTokens(start, end, this.tokenIds, numTokens);
      for (let position = start; position < end; position++) {
        this.positions[numTokens + position - start] = position;
      }
      this.addRows(share, numTokens);
      numTokens += share.numTokens;
      this.queryStarts[place + 1] = numTokens;
      this.contextLengths[place] = end;
      this.blockTables.set(sequence.blocks, place * stride);
      // What an earlier, longer table left behind is not read, but must be a block id.
      this.blockTables.fill(0, place * stride + sequence.numBlocks, (place + 1) * stride);
    }
    if (this.numRows === 0) this.addRow(numTokens - 1, this.tokenIds[numTokens - 1] as number, 0);
    return {
      tokenIds: this.tokenIds.subarray(0, numTokens),
      positions: this.positions.subarray(0, numTokens),
      queryStarts: this.queryStarts.subarray(0, shares.length + 1),
      contextLengths: this.contextLengths.subarray(0, shares.length),
      blockTables: this.blockTables.subarray(0, shares.length * stride),
      blockTableStride: stride,
      logitIndices: this.logitIndices.subarray(0, this.numRows),
      sampling: this.sampling.batch(),
    };
  }

  private addRows(share: StepShare, firstToken: number): void {
    const { sequence } = share;
    const { params, prompt } = sequence.request;
    for (let position = share.scoreStart; position < share.scoreStart + share.numScores; position++) {
      const token = firstToken + position - share.start;
      this.addRow(token, prompt[position + 1] as number, params.promptLogprobs ?? 0);
    }
    if (!share.isDrawing) return;
    this.logitIndices[this.numRows++] = firstToken + share.numTokens - 1;
    this.sampling.addDraw(sequence);
  }

  private addRow(token: number, target: number, numTop: number): void {
    this.logitIndices[this.numRows++] = token;
    this.sampling.addScore(target, numTop);
  }
}
