import type { RaggedIds, SamplingBatch, SamplingResult } from '../../src/runtime/addon.js';
import type { ModelRunner, StepBatch } from '../../src/runtime/model-runner.js';

export interface FakeRunnerOptions {
  readonly vocabSize?: number;
  readonly maxModelLen?: number;
  readonly blockSize?: number;
  readonly numBlocks?: number;
  readonly maxLogitRows?: number;
  readonly maxBatchedTokens?: number;
  /** Where this id is in the context, no token can be drawn or scored. */
  readonly poisonId?: number;
}

export interface FakeStep {
  readonly numSequences: number;
  readonly numTokens: number;
  readonly numRows: number;
  /** Tokens of each sequence. */
  readonly chunks: readonly number[];
}

function expect(holds: boolean, what: string): void {
  if (!holds) throw new Error(`fake runner: ${what}`);
}

/** FNV-1a over whole numbers. */
function fold(hash: number, value: number): number {
  return Math.imul(hash ^ (value + 0x9e37), 0x01000193) >>> 0;
}

function foldAll(hash: number, values: Iterable<number>): number {
  let folded = hash;
  for (const value of values) folded = fold(folded, value);
  return folded;
}

/** MurmurHash3's finalizer. */
function mixed(hash: number): number {
  const first = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  const second = Math.imul(first ^ (first >>> 13), 0xc2b2ae35);
  return (second ^ (second >>> 16)) >>> 0;
}

export function contextHash(tokens: Iterable<number>): number {
  return mixed(foldAll(0x811c9dc5, tokens));
}

/** A made-up log-probability of `id` after a context: the same wherever and whenever it is asked for. */
export function fakeLogprob(context: number, id: number): number {
  return -(mixed(fold(context, id)) % 10_000) / 1000;
}

function rowIds(column: RaggedIds, row: number): Int32Array {
  return column.ids.subarray(column.starts[row], column.starts[row + 1]);
}

/**
 * A toy model with a real KV pool: every slot keeps the token and position written to it, and the next token is a
 * hash of all tokens found through the block table. A wrong table, a stale or shared block, a wrong position or a
 * chunk left out changes the output or throws.
 */
export class FakeRunner implements ModelRunner {
  readonly vocabSize: number;
  readonly maxModelLen: number;
  readonly blockSize: number;
  readonly numBlocks: number;
  readonly maxLogitRows: number;
  readonly maxBatchedTokens: number;
  readonly steps: FakeStep[] = [];
  /** Called when a step begins; what it throws fails the step. */
  beforeStep: (step: FakeStep, batch: StepBatch) => void | Promise<void> = () => undefined;
  isClosed = false;
  private readonly poisonId: number | undefined;
  private readonly tokens: Int32Array; // [numBlocks * blockSize]
  private readonly positions: Int32Array;
  private isStepping = false;
  private gate: { readonly opened: Promise<void>; readonly open: () => void } | null = null;
  private stepWaiters: (() => void)[] = [];

  constructor(options: FakeRunnerOptions = {}) {
    this.vocabSize = options.vocabSize ?? 64;
    this.maxModelLen = options.maxModelLen ?? 512;
    this.blockSize = options.blockSize ?? 4;
    this.numBlocks = options.numBlocks ?? 256;
    this.maxLogitRows = options.maxLogitRows ?? 64;
    this.maxBatchedTokens = options.maxBatchedTokens ?? 256;
    this.poisonId = options.poisonId;
    this.tokens = new Int32Array(this.numBlocks * this.blockSize).fill(-1);
    this.positions = new Int32Array(this.numBlocks * this.blockSize).fill(-1);
  }

  /** Steps that begin from now on wait until `resume`. */
  pause(): void {
    let open = (): void => undefined;
    const opened = new Promise<void>((resolve) => (open = resolve));
    this.gate = { opened, open };
  }

  resume(): void {
    this.gate?.open();
    this.gate = null;
  }

  /** Resolves when the next step begins. */
  nextStep(): Promise<void> {
    return new Promise((resolve) => this.stepWaiters.push(resolve));
  }

  async step(batch: StepBatch): Promise<SamplingResult> {
    expect(!this.isStepping, 'two steps at once');
    expect(!this.isClosed, 'step after close');
    this.isStepping = true;
    try {
      this.check(batch);
      const numSequences = batch.contextLengths.length;
      const chunks = Array.from(
        { length: numSequences },
        (_, s) => batch.queryStarts[s + 1]! - batch.queryStarts[s]!,
      );
      const step = {
        numSequences,
        numTokens: batch.tokenIds.length,
        numRows: batch.logitIndices.length,
        chunks,
      };
      this.steps.push(step);
      const { gate } = this;
      const waiting = this.beforeStep(step, batch);
      for (const resolve of this.stepWaiters.splice(0)) resolve();
      await waiting;
      await gate?.opened;
      this.write(batch);
      return this.sample(batch);
    } finally {
      this.isStepping = false;
    }
  }

  async close(): Promise<void> {
    expect(!this.isStepping, 'close during a step');
    this.isClosed = true;
  }

  private check(batch: StepBatch): void {
    const { tokenIds, positions, queryStarts, contextLengths, blockTables, blockTableStride } = batch;
    const numSequences = contextLengths.length;
    expect(tokenIds.length > 0 && tokenIds.length <= this.maxBatchedTokens, `${tokenIds.length} tokens`);
    expect(positions.length === tokenIds.length, 'positions of all tokens');
    expect(queryStarts.length === numSequences + 1 && queryStarts[0] === 0, 'query starts');
    expect(queryStarts[numSequences] === tokenIds.length, 'query starts cover the tokens');
    expect(blockTables.length === numSequences * blockTableStride, 'block tables');
    expect(
      tokenIds.every((id) => id >= 0 && id < this.vocabSize),
      'token ids within the vocabulary',
    );
    expect(
      blockTables.every((block) => block >= 0 && block < this.numBlocks),
      'block ids within the pool',
    );
    const readers = new Map<number, number>();
    const writers = new Map<number, number>();
    for (let s = 0; s < numSequences; s++) {
      const [start, end, length] = [queryStarts[s]!, queryStarts[s + 1]!, contextLengths[s]!];
      expect(end > start, `sequence ${s} has no tokens`);
      expect(length <= this.maxModelLen, `context of ${length}`);
      for (let token = start; token < end; token++) {
        expect(positions[token] === length - (end - token), `position of token ${token}`);
      }
      const numBlocks = Math.ceil(length / this.blockSize);
      expect(numBlocks <= blockTableStride, `table of sequence ${s} is too short`);
      for (let i = 0; i < numBlocks; i++) {
        const block = blockTables[s * blockTableStride + i]!;
        readers.set(block, (readers.get(block) ?? 0) + 1);
        if ((i + 1) * this.blockSize > length - (end - start)) writers.set(block, s);
      }
    }
    for (const block of writers.keys())
      expect(readers.get(block) === 1, `block ${block} is written while shared`);
    this.checkRows(batch.logitIndices, tokenIds.length, batch.sampling);
  }

  private checkRows(indices: Int32Array, numTokens: number, sampling: SamplingBatch): void {
    expect(indices.length >= 1 && indices.length <= this.maxLogitRows, `${indices.length} logits rows`);
    for (const [row, index] of indices.entries()) {
      expect(index > (row === 0 ? -1 : indices[row - 1]!) && index < numTokens, `logits row ${row}`);
    }
    expect(sampling.rows === indices.length && sampling.vocab === this.vocabSize, 'sampling rows');
    const { temperature, topK, topP, minP, repetitionPenalty, presencePenalty, frequencyPenalty } = sampling;
    const columns = [temperature, topK, topP, minP, repetitionPenalty, presencePenalty, frequencyPenalty];
    for (const column of [...columns, sampling.seed, sampling.counter, sampling.target, sampling.numTop]) {
      expect(column.length === sampling.rows, 'length of a sampling column');
    }
    const { promptIds, outputIds, biasIds, bannedIds, allowedIds } = sampling;
    for (const { starts, ids } of [promptIds, outputIds, biasIds, bannedIds, allowedIds]) {
      expect(starts.length === sampling.rows + 1 && starts[0] === 0, 'starts of a ragged column');
      expect(starts[sampling.rows] === ids.length, 'ids of a ragged column');
      expect(
        ids.every((id) => id >= 0 && id < this.vocabSize),
        'sampling ids within the vocabulary',
      );
    }
    expect(sampling.biasValues.length === biasIds.ids.length, 'bias values');
  }

  private slot(batch: StepBatch, sequence: number, position: number): number {
    const entry = sequence * batch.blockTableStride + Math.floor(position / this.blockSize);
    return batch.blockTables[entry]! * this.blockSize + (position % this.blockSize);
  }

  private write(batch: StepBatch): void {
    for (let s = 0; s < batch.contextLengths.length; s++) {
      for (let token = batch.queryStarts[s]!; token < batch.queryStarts[s + 1]!; token++) {
        const slot = this.slot(batch, s, batch.positions[token]!);
        this.tokens[slot] = batch.tokenIds[token]!;
        this.positions[slot] = batch.positions[token]!;
      }
    }
  }

  private sample(batch: StepBatch): SamplingResult {
    const { rows, numTop } = batch.sampling;
    const topStride = numTop.reduce((most, count) => Math.max(most, count), 0);
    const result = {
      ids: new Int32Array(rows),
      logprobs: new Float32Array(rows),
      ranks: new Int32Array(rows),
      topIds: new Int32Array(rows * topStride).fill(-1),
      topLogprobs: new Float32Array(rows * topStride),
      topStride,
    };
    let sequence = 0;
    for (let row = 0; row < rows; row++) {
      const index = batch.logitIndices[row]!;
      while (batch.queryStarts[sequence + 1]! <= index) sequence++;
      const tokens: number[] = [];
      for (let position = 0; position <= batch.positions[index]!; position++) {
        const slot = this.slot(batch, sequence, position);
        expect(
          this.positions[slot] === position,
          `sequence ${sequence} reads a foreign position ${position}`,
        );
        tokens.push(this.tokens[slot]!);
      }
      this.sampleRow(batch.sampling, row, tokens, result);
    }
    return result;
  }

  private sampleRow(sampling: SamplingBatch, row: number, tokens: number[], result: SamplingResult): void {
    const context = contextHash(tokens);
    const isPoisoned = this.poisonId !== undefined && tokens.includes(this.poisonId);
    const target = sampling.target[row]!;
    const id = isPoisoned ? -1 : target >= 0 ? target : this.draw(sampling, row, context);
    result.ids[row] = id;
    if (id < 0) return;
    const all = Array.from({ length: this.vocabSize }, (_, other) => other);
    const own = fakeLogprob(context, id);
    result.logprobs[row] = own;
    result.ranks[row] = 1 + all.filter((other) => fakeLogprob(context, other) > own).length;
    const numTop = sampling.numTop[row]!;
    if (numTop === 0) return;
    const byLikelihood = all.sort((a, b) => fakeLogprob(context, b) - fakeLogprob(context, a) || a - b);
    for (const [place, other] of byLikelihood.slice(0, numTop).entries()) {
      result.topIds[row * result.topStride + place] = other;
      result.topLogprobs[row * result.topStride + place] = fakeLogprob(context, other);
    }
  }

  /** Depends on every column, as a sampler would; a bias of 50 or more decides alone. */
  private draw(sampling: SamplingBatch, row: number, context: number): number {
    const allowed = new Set(rowIds(sampling.allowedIds, row));
    const banned = new Set(rowIds(sampling.bannedIds, row));
    const candidates: number[] = [];
    for (let id = 0; id < this.vocabSize; id++) {
      if (!banned.has(id) && (allowed.size === 0 || allowed.has(id))) candidates.push(id);
    }
    if (candidates.length === 0) return -1;
    let hash = context;
    for (const column of [sampling.repetitionPenalty, sampling.presencePenalty, sampling.frequencyPenalty]) {
      hash = fold(hash, Math.round(column[row]! * 1000));
    }
    hash = foldAll(hash, rowIds(sampling.promptIds, row));
    hash = fold(foldAll(hash, rowIds(sampling.outputIds, row)), -1);
    const biases = rowIds(sampling.biasIds, row);
    for (const [place, id] of biases.entries()) {
      const value = sampling.biasValues[sampling.biasIds.starts[row]! + place]!;
      if (value >= 50 && candidates.includes(id)) return id;
      hash = fold(fold(hash, id), Math.round(value * 1000));
    }
    if (sampling.temperature[row]! > 0) {
      for (const column of [sampling.temperature, sampling.topP, sampling.minP, sampling.topK]) {
        hash = fold(hash, Math.round(column[row]! * 1000));
      }
      const seed = sampling.seed[row]!;
      hash = foldAll(hash, [Number(seed & 0xffffffffn), Number(seed >> 32n), Number(sampling.counter[row]!)]);
    }
    return candidates[mixed(hash) % candidates.length]!;
  }
}
