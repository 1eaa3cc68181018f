import { appendFileSync, statSync } from 'node:fs';
import process from 'node:process';
import type { BaseCommand } from '../cli/base-command.js';
import { readGithubStep, type GithubStep } from '../cli/ci.js';
import { printableLine } from '../cli/render.js';
import { FdqError, UserError } from '../errors.js';
import type { BenchReport } from './report.js';
import { summarizeGate } from './report/format.js';
import { renderHtml } from './report/html/page.js';
import { renderAnnotations, renderOutputs, renderStepSummary } from './report/github.js';
import { planReporters, type ReportPlan } from './report/reporters.js';
import { checkWritable, writeFileWhole } from './write-file.js';

/** Values of BENCH_REPORT_FLAGS. */
export interface ReportValues {
  readonly reporter: readonly string[] | undefined;
  readonly html: string | undefined;
}

/** The end of every `fdq bench` command: what was asked for is checked before anything is measured. */
export interface BenchOutput {
  /**
   * Prints the report, writes the files and ends the command with 0, or with 4, 5 or 130 by throwing what oclif exits
   * with.
   * @param interrupted exit code of the signal that ended the measurement
   * @returns what --json prints
   */
  finish(report: BenchReport, interrupted?: number): Promise<BenchReport>;
}

/**
 * @throws UserError `usage` for wrong reporters and for files that cannot be written
 */
export function openBenchOutput(command: BaseCommand, values: ReportValues): BenchOutput {
  const github = readGithubStep();
  const plan = planReporters(values.reporter ?? [], {
    isJson: command.jsonEnabled(),
    isActions: github.isActions,
  });
  for (const { file } of plan.files) checkWritable(file, '--reporter');
  if (values.html !== undefined) checkWritable(values.html, '--html');
  return {
    finish: (report, interrupted) =>
      finishBench(command, report, { plan, github, html: values.html, interrupted }),
  };
}

interface Ending {
  readonly plan: ReportPlan;
  readonly github: GithubStep;
  readonly html: string | undefined;
  readonly interrupted: number | undefined;
}

async function finishBench(command: BaseCommand, report: BenchReport, ending: Ending): Promise<BenchReport> {
  const { plan, github, interrupted } = ending;
  for (const warning of report.warnings) command.warn(warning);
  if (plan.stdout !== null) process.stdout.write(await plan.stdout(report, terminalWidth()));
  if (plan.github) tellGithub(command, report, github);
  const writeErrors = await writeFiles(report, ending);
  if (interrupted !== undefined) {
    for (const error of writeErrors) command.warn(error.message);
    return command.failWithResult(interruption(), report, interrupted);
  }
  const [first, ...more] = [...gateErrors(report), ...writeErrors];
  for (const error of more) command.warn(error.message);
  return first === undefined ? report : command.failWithResult(first, report);
}

function terminalWidth(): number {
  return process.stdout.isTTY ? process.stdout.columns : Infinity;
}

/** Every file is tried: one that fails loses no other. */
async function writeFiles(report: BenchReport, { plan, html }: Ending): Promise<readonly FdqError[]> {
  const page = html === undefined ? [] : [{ file: html, render: renderHtml }];
  const errors: FdqError[] = [];
  for (const { file, render } of [...plan.files, ...page]) {
    try {
      writeFileWhole(file, await render(report, Infinity));
    } catch (error) {
      if (!(error instanceof FdqError)) throw error;
      errors.push(error);
    }
  }
  return errors;
}

/** Annotations go to stderr, which the runner reads as well: stdout holds the report alone. */
function tellGithub(
  command: BaseCommand,
  report: BenchReport,
  { summaryFile, outputFile }: GithubStep,
): void {
  for (const line of renderAnnotations(report)) process.stderr.write(`${line}\n`);
  const append = (file: string | undefined, render: (usedBytes: number) => string): void => {
    if (file === undefined) return;
    try {
      appendFileSync(file, render(statSync(file, { throwIfNoEntry: false })?.size ?? 0));
    } catch (error) {
      command.warn(`GitHub is not told: ${error instanceof Error ? error.message : String(error)}.`);
    }
  };
  append(summaryFile, (usedBytes) => renderStepSummary(report, usedBytes));
  append(outputFile, () => renderOutputs(report));
}

function gateErrors(report: BenchReport): readonly FdqError[] {
  const { gate } = report;
  if (gate === null || gate.verdict === 'pass') return [];
  const lines = gate.checks
    .filter(({ verdict }) => verdict !== 'pass')
    .map(({ verdict, condition, scenario, reason }) =>
      printableLine(`  ${verdict}: ${condition} in ${scenario}: ${reason}`),
    );
  const message = `${summarizeGate(report) ?? ''}:\n${lines.join('\n')}`;
  return [
    gate.verdict === 'fail'
      ? new UserError('check_failed', message, {
          param: 'fail-if',
          suggestions: ['Where the change is wanted, write the baseline again with --save-baseline.'],
        })
      : new UserError('inconclusive', message, {
          param: 'fail-if',
          suggestions: [
            'Give it more time, a quieter machine or a wider limit, or compare both builds in turns with --baseline-command.',
          ],
        }),
  ];
}

function interruption(): FdqError {
  return new UserError('aborted', 'Interrupted: the report holds what was measured so far.', {
    suggestions: ['Nothing was decided, and no baseline was saved.'],
  });
}
