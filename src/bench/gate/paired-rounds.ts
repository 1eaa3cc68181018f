/** What two builds measured in turns. */
export interface PairedRounds {
  /** By scenario, then by metric id: one entry a launch of both builds, in the order they happened. */
  readonly scenarios: ReadonlyMap<string, ReadonlyMap<string, readonly PairedLaunch[]>>;
}

/** Figures of one launch; those at the same index were taken one right after the other. */
export interface PairedLaunch {
  readonly now: readonly number[];
  readonly baseline: readonly number[];
}

export function findLaunches(
  rounds: PairedRounds | undefined,
  scenario: string,
  metric: string,
): readonly PairedLaunch[] {
  return rounds?.scenarios.get(scenario)?.get(metric) ?? [];
}
