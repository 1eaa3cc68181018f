import type { RaggedIds, SamplingBatch } from '../runtime/addon.js';
import type { Sequence } from './sequence.js';
import { isEndToken } from './stop.js';

/** Lists of ids, one per row, in arrays that only grow. */
class RaggedColumn {
  private readonly starts: Int32Array; // [maxRows + 1]
  private ids = new Int32Array(0);
  private length = 0;

  constructor(maxRows: number) {
    this.starts = new Int32Array(maxRows + 1);
  }

  clear(): void {
    this.length = 0;
  }

  append(ids: Int32Array | readonly number[]): void {
    const needed = this.length + ids.length;
    if (needed > this.ids.length) {
      const larger = new Int32Array(Math.max(needed, 2 * this.ids.length));
      larger.set(this.ids);
      this.ids = larger;
    }
    this.ids.set(ids, this.length);
    this.length = needed;
  }

  endRow(row: number): void {
    this.starts[row + 1] = this.length;
  }

  view(rows: number): RaggedIds {
    return { starts: this.starts.subarray(0, rows + 1), ids: this.ids.subarray(0, this.length) };
  }
}

/** Writes the sampling columns of a step row by row. The batch it returns is valid until the next `clear`. */
export class SamplingColumns {
  private rows = 0;
  private readonly temperature: Float32Array;
  private readonly topK: Int32Array;
  private readonly topP: Float32Array;
  private readonly minP: Float32Array;
  private readonly repetitionPenalty: Float32Array;
  private readonly presencePenalty: Float32Array;
  private readonly frequencyPenalty: Float32Array;
  private readonly seed: BigUint64Array;
  private readonly counter: BigUint64Array;
  private readonly target: Int32Array;
  private readonly numTop: Int32Array;
  private readonly promptIds: RaggedColumn;
  private readonly outputIds: RaggedColumn;
  private readonly biasIds: RaggedColumn;
  private biasValues = new Float32Array(0);
  private numBiases = 0;
  private readonly bannedIds: RaggedColumn;
  private readonly allowedIds: RaggedColumn;

  constructor(
    private readonly vocab: number,
    maxRows: number,
    private readonly eosTokenIds: ReadonlySet<number>,
  ) {
    this.temperature = new Float32Array(maxRows);
    this.topK = new Int32Array(maxRows);
    this.topP = new Float32Array(maxRows);
    this.minP = new Float32Array(maxRows);
    this.repetitionPenalty = new Float32Array(maxRows);
    this.presencePenalty = new Float32Array(maxRows);
    this.frequencyPenalty = new Float32Array(maxRows);
    this.seed = new BigUint64Array(maxRows);
    this.counter = new BigUint64Array(maxRows);
    this.target = new Int32Array(maxRows);
    this.numTop = new Int32Array(maxRows);
    this.promptIds = new RaggedColumn(maxRows);
    this.outputIds = new RaggedColumn(maxRows);
    this.biasIds = new RaggedColumn(maxRows);
    this.bannedIds = new RaggedColumn(maxRows);
    this.allowedIds = new RaggedColumn(maxRows);
  }

  clear(): void {
    this.rows = 0;
    this.numBiases = 0;
    for (const column of this.raggedColumns()) column.clear();
  }

  /** A row that reports token `id` as the model alone would have it. */
  addScore(id: number, numTop: number): void {
    const row = this.rows;
    this.temperature[row] = 0;
    this.topK[row] = 0;
    this.topP[row] = 1;
    this.minP[row] = 0;
    this.repetitionPenalty[row] = 1;
    this.presencePenalty[row] = 0;
    this.frequencyPenalty[row] = 0;
    this.seed[row] = 0n;
    this.counter[row] = 0n;
    this.target[row] = id;
    this.numTop[row] = Math.min(numTop, this.vocab);
    this.endRow();
  }

  /** A row that draws the next token of `sequence`. */
  addDraw(sequence: Sequence): void {
    const row = this.rows;
    const { params, prompt } = sequence.request;
    this.temperature[row] = params.temperature;
    this.topK[row] = params.topK;
    this.topP[row] = params.topP;
    this.minP[row] = params.minP;
    this.repetitionPenalty[row] = params.repetitionPenalty;
    this.presencePenalty[row] = params.presencePenalty;
    this.frequencyPenalty[row] = params.frequencyPenalty;
    this.seed[row] = sequence.seed;
    this.counter[row] = BigInt(sequence.numOutput);
    this.target[row] = -1;
    this.numTop[row] = Math.min(params.logprobs ?? 0, this.vocab);
    // Ids are copied only where a penalty looks at them.
    const isRepetitionPenalized = params.repetitionPenalty !== 1;
    if (isRepetitionPenalized) this.promptIds.append(prompt);
    if (isRepetitionPenalized || params.presencePenalty !== 0 || params.frequencyPenalty !== 0) {
      this.outputIds.append(sequence.output);
    }
    this.addBiases(params.logitBias);
    this.bannedIds.append(this.banned(sequence));
    this.allowedIds.append(params.allowedTokenIds);
    this.endRow();
  }

  batch(): SamplingBatch {
    const { rows } = this;
    return {
      rows,
      vocab: this.vocab,
      temperature: this.temperature.subarray(0, rows),
      topK: this.topK.subarray(0, rows),
      topP: this.topP.subarray(0, rows),
      minP: this.minP.subarray(0, rows),
      repetitionPenalty: this.repetitionPenalty.subarray(0, rows),
      presencePenalty: this.presencePenalty.subarray(0, rows),
      frequencyPenalty: this.frequencyPenalty.subarray(0, rows),
      seed: this.seed.subarray(0, rows),
      counter: this.counter.subarray(0, rows),
      target: this.target.subarray(0, rows),
      numTop: this.numTop.subarray(0, rows),
      promptIds: this.promptIds.view(rows),
      outputIds: this.outputIds.view(rows),
      biasIds: this.biasIds.view(rows),
      biasValues: this.biasValues.subarray(0, this.numBiases),
      bannedIds: this.bannedIds.view(rows),
      allowedIds: this.allowedIds.view(rows),
    };
  }

  private banned(sequence: Sequence): number[] {
    const { params } = sequence.request;
    const ids: number[] = [];
    if (sequence.numOutput < params.minTokens) {
      for (const id of this.eosTokenIds) if (isEndToken(params, this.eosTokenIds, id)) ids.push(id);
      ids.push(...params.stopTokenIds);
    }
    for (const word of params.badWords) {
      const last = word.at(-1);
      if (last !== undefined && endsWith(sequence.output, word, word.length - 1)) ids.push(last);
    }
    return ids;
  }

  private addBiases(biases: ReadonlyMap<number, number>): void {
    if (biases.size === 0) return;
    const needed = this.numBiases + biases.size;
    if (needed > this.biasValues.length) {
      const larger = new Float32Array(Math.max(needed, 2 * this.biasValues.length));
      larger.set(this.biasValues);
      this.biasValues = larger;
    }
    this.biasIds.append([...biases.keys()]);
    for (const value of biases.values()) this.biasValues[this.numBiases++] = value;
  }

  private endRow(): void {
    for (const column of this.raggedColumns()) column.endRow(this.rows);
    this.rows++;
  }

  private raggedColumns(): readonly RaggedColumn[] {
    return [this.promptIds, this.outputIds, this.biasIds, this.bannedIds, this.allowedIds];
  }
}

/** Whether `ids` ends with the first `length` of `word`. */
function endsWith(ids: Int32Array, word: readonly number[], length: number): boolean {
  const start = ids.length - length;
  if (start < 0) return false;
  for (let place = 0; place < length; place++) if (ids[start + place] !== word[place]) return false;
  return true;
}
