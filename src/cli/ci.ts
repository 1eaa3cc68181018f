import process from 'node:process';

/** What GitHub Actions tells a step. */
export interface GithubStep {
  readonly isActions: boolean;
  /** Markdown appended here is shown beside the log; absent outside Actions. */
  readonly summaryFile: string | undefined;
  /** `key=value` lines appended here are read by later steps. */
  readonly outputFile: string | undefined;
}

/** Reads what the runner has set. */
export function readGithubStep(environment: NodeJS.ProcessEnv = process.env): GithubStep {
  const { GITHUB_ACTIONS, GITHUB_STEP_SUMMARY, GITHUB_OUTPUT } = environment;
  return {
    isActions: GITHUB_ACTIONS === 'true',
    summaryFile: nonEmpty(GITHUB_STEP_SUMMARY),
    outputFile: nonEmpty(GITHUB_OUTPUT),
  };
}

function nonEmpty(text: string | undefined): string | undefined {
  return text === '' ? undefined : text;
}
