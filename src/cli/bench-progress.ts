import { createProgress, type Progress } from './progress.js';

/** What `fdq bench` tells about: models, named when they are known, one after the other. */
export interface BenchProgress {
  planned(names: readonly string[]): void;
  begin(name: string): void;
  update(name: string, message: string): void;
  end(name: string): void;
  stop(outcome: 'ready' | 'failed'): Promise<void>;
}

export function createBenchProgress(): BenchProgress {
  let progress: Progress<string> | undefined;
  return {
    planned: (names) => {
      progress = createProgress<string>(Object.fromEntries(names.map((name) => [name, name])));
    },
    begin: (name) => progress?.phase(name, 'start'),
    update: (name, message) => progress?.phase(name, 'progress', { message }),
    end: (name) => progress?.phase(name, 'done'),
    stop: async (outcome) => progress?.stop(outcome),
  };
}
