export interface CudaToolkit {
  readonly bin: string;
  readonly flags: readonly string[];
  readonly version: readonly [number, number];
  readonly isPinned: boolean;
}
export interface ToolkitPlace {
  readonly environment: Readonly<Record<string, string>>;
  readonly platform: string;
  readonly arch: string;
  readonly folder: string;
  readonly requirements: string;
  readonly system: string;
  readonly warn: (line: string) => void;
}
export function findToolkit(options?: Partial<ToolkitPlace>): CudaToolkit;
export function tryToolkit(
  toolkit: CudaToolkit,
  environment?: Readonly<Record<string, string>>,
): string | undefined;
