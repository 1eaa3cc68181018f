export function fakeLibraries(needed: string, symbols: string): Map<string, string[]>;
export function stubSource(library: string, symbols: readonly string[]): string;
