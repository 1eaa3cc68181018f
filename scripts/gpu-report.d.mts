/** What has to be reached: TFLOPS (in no more than bfloat16's time), or a share of the bandwidth. */
export type Bar = readonly ['TFLOPS' | 'bandwidth', number];

/** What the page shows of one measured case, as run.py writes it. */
export interface BenchRow {
  readonly case: string;
  readonly microseconds?: number;
  readonly gigabytesPerSecond?: number;
  readonly teraflops?: number;
  readonly bandwidthShare?: number;
  readonly computeShare?: number;
  readonly bfloat16Microseconds?: number;
  readonly scaledMmMicroseconds?: number;
  readonly scaledMmError?: string;
  readonly bfloat16Error?: string;
  readonly bar?: Bar;
  readonly isMet?: boolean;
  readonly isLeftOut?: boolean;
  readonly error?: string;
}

export interface Device {
  readonly name: string;
  readonly torch?: string;
  readonly cuda?: string;
  readonly isSample?: boolean;
}

export interface CheckRow {
  readonly name: string;
  readonly cases: number;
  readonly leftOut?: number;
  readonly failures: readonly unknown[];
  readonly worst_rms: number;
}

export interface SanitizerRun {
  readonly tool: string;
  readonly check: string;
  readonly status: string;
}

export interface SassRow {
  readonly name: string;
  readonly registers: number;
  readonly threads: number;
  readonly sharedBytes: number;
  readonly blocks: number;
  readonly percent: number;
  readonly instructions: Readonly<Record<string, number>>;
}

export function render(results: {
  readonly benches: readonly { readonly device: Device | null; readonly rows: readonly BenchRow[] }[];
  readonly checks: readonly { readonly device: Device | null; readonly checks: readonly CheckRow[] }[];
  readonly sanitized: readonly { readonly runs: readonly SanitizerRun[] }[];
  readonly cases: readonly { readonly case: string; readonly bar: Bar | null }[];
  readonly sass: readonly SassRow[];
}): string;
