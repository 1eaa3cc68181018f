import type { OutputQueue } from './output-queue.js';
import type { StopChecker } from './stop.js';
import type { GenerationRequest, SamplingParams, TokenLogprob } from './types.js';

const FIRST_CAPACITY = 16;
const SPLITMIX_INCREMENT = 0x9e3779b97f4a7c15n;

/** `held`: waits for choice 0 to compute the prompt they share. */
export type SequencePhase = 'held' | 'waiting' | 'running' | 'finished';

/** What one sequence does in one step. */
export interface StepShare {
  readonly sequence: Sequence;
  /** First position computed. */
  readonly start: number;
  readonly numTokens: number;
  /** Positions `scoreStart .. scoreStart + numScores - 1` report the prompt token that follows them. */
  readonly scoreStart: number;
  readonly numScores: number;
  /** Whether the last position draws the next token. */
  readonly isDrawing: boolean;
}

function grown(array: Int32Array, needed: number): Int32Array<ArrayBuffer> {
  const larger = new Int32Array(Math.max(needed, array.length * 2, FIRST_CAPACITY));
  larger.set(array);
  return larger;
}

/** Seed of choice `index`, unrelated streams from one seed (SplitMix64, Steele et al. 2014); choice 0 keeps it. */
export function choiceSeed(seed: bigint, index: number): bigint {
  if (index === 0) return BigInt.asUintN(64, seed);
  let mixed = BigInt.asUintN(64, seed + BigInt(index) * SPLITMIX_INCREMENT);
  mixed = BigInt.asUintN(64, (mixed ^ (mixed >> 30n)) * 0xbf58476d1ce4e5b9n);
  mixed = BigInt.asUintN(64, (mixed ^ (mixed >> 27n)) * 0x94d049bb133111ebn);
  return mixed ^ (mixed >> 31n);
}

/** One choice of a request: its tokens, and the KV blocks that hold them while it runs. */
export class Sequence {
  phase: SequencePhase = 'held';
  /** Tokens whose keys and values are in `blocks`. */
  numComputed = 0;
  share: StepShare | null = null;
  /** Made with the first token. */
  checker: StopChecker | null = null;
  /** Seconds; of the last generated token. */
  lastTokenAt = 0;
  /** Place in the waiting queue; -1: not there. */
  queueIndex = -1;
  private outputIds = new Int32Array(FIRST_CAPACITY);
  private blockIds = new Int32Array(FIRST_CAPACITY);
  private ownDigests: string[] = [];
  numOutput = 0;
  numBlocks = 0;

  constructor(
    readonly request: RequestState,
    readonly index: number,
    /** Of all sequences, by arrival. */
    readonly ordinal: number,
    readonly seed: bigint,
  ) {}

  get numTokens(): number {
    return this.request.prompt.length + this.numOutput;
  }

  /** Generated ids; a view that the next token may invalidate. */
  get output(): Int32Array {
    return this.outputIds.subarray(0, this.numOutput);
  }

  /** A view that the next `addBlock` may invalidate. */
  get blocks(): Int32Array {
    return this.blockIds.subarray(0, this.numBlocks);
  }

  /** Tokens to compute before there is a next one to draw or nothing left to score. */
  get goal(): number {
    if (this.request.params.maxTokens > 0) return this.numTokens;
    return this.isScoring ? this.request.prompt.length - 1 : 0;
  }

  /** Choice 0 scores the prompt for the whole request. */
  get isScoring(): boolean {
    return this.index === 0 && this.request.promptScores !== null;
  }

  /** Prompt positions whose score is still needed are `unscoredStart .. scoreEnd - 1`. */
  get unscoredStart(): number {
    return this.isScoring ? (this.request.promptScores?.length ?? 1) - 1 : 0;
  }

  get scoreEnd(): number {
    return this.isScoring ? this.request.prompt.length - 1 : 0;
  }

  /** Served before `other`: lower priority number, then earlier arrival. */
  isBefore(other: Sequence): boolean {
    const difference = this.request.priority - other.request.priority;
    return difference === 0 ? this.ordinal < other.ordinal : difference < 0;
  }

  append(id: number): void {
    if (this.numOutput === this.outputIds.length) this.outputIds = grown(this.outputIds, this.numOutput + 1);
    this.outputIds[this.numOutput++] = id;
  }

  addBlock(block: number): void {
    if (this.numBlocks === this.blockIds.length) this.blockIds = grown(this.blockIds, this.numBlocks + 1);
    this.blockIds[this.numBlocks++] = block;
  }

  /** Copies the ids of positions `start .. end - 1` to `target` from `at` on. */
  copyTokens(start: number, end: number, target: Int32Array, at: number): void {
    const prompt = this.request.prompt;
    if (start < prompt.length) target.set(prompt.subarray(start, Math.min(end, prompt.length)), at);
    if (end > prompt.length) {
      const from = Math.max(start, prompt.length);
      target.set(this.outputIds.subarray(from - prompt.length, end - prompt.length), at + from - start);
    }
  }

  /** Digest of the full block `block`; null when the request shares nothing. Ask for them in order. */
  digest(block: number, extend: (parent: string, start: number) => string, blockSize: number): string | null {
    const chain = this.request.promptDigests;
    if (chain === null) return null;
    if (block < chain.length) return chain[block] as string;
    for (let next = chain.length + this.ownDigests.length; next <= block; next++) {
      const parent = this.ownDigests.at(-1) ?? chain.at(-1) ?? this.request.rootDigest;
      this.ownDigests.push(extend(parent, next * blockSize));
    }
    return this.ownDigests[block - chain.length] as string;
  }
}

/** One request under way: what its choices share. */
export class RequestState {
  readonly id: string;
  readonly params: SamplingParams;
  readonly priority: number;
  readonly prompt: Int32Array;
  readonly sequences: Sequence[] = [];
  /** As many entries as scored so far, the first null; null: not asked for. */
  readonly promptScores: (TokenLogprob | null)[] | null;
  /** Parent of the first block's digest. */
  rootDigest = '';
  /** Of the prompt's full blocks; null: blocks are neither looked up nor published. */
  promptDigests: readonly string[] | null = null;
  isStarted = false;
  /** Whether the prompt's scores were handed out. */
  isScoreSent = false;
  numFinished = 0;
  numGenerated = 0;
  hasHitLength = false;
  scheduledAt: number | null = null;
  firstTokenAt: number | null = null;
  /** Stops listening to the caller's signal. */
  unlisten: () => void = () => undefined;

  constructor(
    readonly source: GenerationRequest,
    readonly queue: OutputQueue,
    /** Seconds. */
    readonly arrivedAt: number,
    /** Most tokens a choice can have: maxTokens cut to the context and the KV pool. */
    readonly maxGenerated: number,
  ) {
    this.id = source.id;
    this.params = source.params;
    this.priority = source.priority ?? 0;
    this.prompt = Int32Array.from(source.promptTokenIds);
    this.promptScores = source.params.promptLogprobs === undefined ? null : [null];
  }
}
