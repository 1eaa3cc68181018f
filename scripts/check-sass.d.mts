export interface KernelRequirement {
  kernel: RegExp;
  contains: readonly string[];
  threads: number;
  sharedBytes?: number;
}
export interface KernelResources {
  registers: number;
  spillBytes: number;
  sharedBytes: number;
}
export interface KernelRow {
  name: string;
  registers: number;
  threads: number;
  sharedBytes: number;
  blocks: number;
  percent: number;
  instructions: Record<string, number>;
}
export function countInstructions(text: string): Map<string, Map<string, number>>;
export function findSerialized(text: string): string[];
export function findSpills(text: string): { target: string; mangled: string; bytes: number }[];
export function readResources(text: string): Map<string, KernelResources>;
export function occupancy(
  registers: number,
  threads: number,
  sharedBytes: number,
): { blocks: number; percent: number };
export function shortName(demangled: string): string;
export function judge(
  names: readonly string[],
  instructions: Map<string, Map<string, number>>,
  resources: Map<string, KernelResources>,
  table: readonly KernelRequirement[],
): { rows: KernelRow[]; problems: string[] };
