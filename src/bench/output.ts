import { appendFileSync, statSync } from 'node:fs';
import path from 'node:path';
import process from 'node:process';
import type { BaseCommand } from '../cli/base-command.js';
import { readGithubStep, type GithubStep } from '../cli/ci.js';
import { printableLine } from '../cli/render.js';
import { FdqError, UserError } from '../errors.js';
import { saveBaseline } from './gate/baseline-file.js';
import { evaluateGate, gateWarnings } from './gate/evaluate.js';
import { parseGate, type GateOptions, type GateValues } from './gate/options.js';
import type { BenchKind, BenchReport, GateResult } from './report.js';
import { summarizeGate } from './report/format.js';
import { renderHtml } from './report/html/page.js';
import { renderAnnotations, renderOutputs, renderStepSummary } from './report/github.js';
import { planReporters, type ReportPlan } from './report/reporters.js';
import { checkWritable, writeFileWhole } from '../cli/write-file.js';

/** Values of BENCH_REPORT_FLAGS and BENCH_GATE_FLAGS. */
export interface OutputValues extends GateValues {
  readonly reporter: readonly string[] | undefined;
  readonly html: string | undefined;
}

/** The end of every `fdq bench` command: what was asked for is checked before anything is measured. */
export interface BenchOutput {
  readonly gate: GateOptions;
  /**
   * Decides, unless the report already holds a verdict, prints the report, writes the files and ends the command with
   * 0, or with 4, 5 or 130 by throwing what oclif exits with.
   * @param interrupted exit code of the signal that ended the measurement: nothing is decided then
   * @param unsaved files of the command itself that could not be written
   * @returns what --json prints
   */
  finish(report: BenchReport, interrupted?: number, unsaved?: readonly FdqError[]): Promise<BenchReport>;
}

/**
 * @throws UserError `usage` for wrong reporters and conditions and for files that cannot be written or are named
 * twice, and what parseGate throws about the baseline
 */
export function openBenchOutput(command: BaseCommand, values: OutputValues, kind: BenchKind): BenchOutput {
  const github = readGithubStep();
  const { html } = values;
  const plan = planReporters(values.reporter ?? [], {
    isJson: command.jsonEnabled(),
    isActions: github.isActions,
  });
  const gate = parseGate(values, kind);
  checkFiles([
    ...plan.files.map(({ file }) => ['--reporter', file] as const),
    ['--html', html],
    ['--save-baseline', gate.saveBaseline ?? undefined],
  ]);
  return {
    gate,
    finish: (report, interrupted, unsaved = []) => {
      const ending = { plan, github, html, gate, unsaved };
      return interrupted === undefined
        ? finishBench(command, decide(report, gate), ending)
        : endInterrupted(command, report, { ending, exitCode: interrupted });
    },
  };
}

function checkFiles(files: readonly (readonly [flag: string, file: string | undefined])[]): void {
  const seen = new Map<string, string>();
  for (const [flag, file] of files) {
    if (file === undefined) continue;
    checkWritable(file, flag);
    const first = seen.get(path.resolve(file));
    if (first !== undefined) {
      throw new UserError(
        'usage',
        `Expected ${flag} and ${first} to write files of their own but both name ${file}.`,
        {
          param: flag,
          suggestions: ['Give one of them another file.'],
        },
      );
    }
    seen.set(path.resolve(file), flag);
  }
}

function decide(report: BenchReport, options: GateOptions): BenchReport {
  const warnings = [...report.warnings, ...gateWarnings(report, options)];
  return { ...report, warnings, gate: report.gate ?? evaluateGate(report, options) };
}

interface Ending {
  readonly plan: ReportPlan;
  readonly github: GithubStep;
  readonly html: string | undefined;
  readonly gate: GateOptions;
  readonly unsaved: readonly FdqError[];
}

async function finishBench(command: BaseCommand, report: BenchReport, ending: Ending): Promise<BenchReport> {
  const writeErrors = [
    ...(await show(command, report, ending)),
    ...(await keepBaseline(command, report, ending)),
  ];
  const [first, ...more] = [...gateErrors(report, ending.gate), ...writeErrors];
  for (const error of more) command.warn(error.message);
  return first === undefined ? report : command.failWithResult(first, report);
}

/** What was measured is shown, and neither judged nor kept as a baseline. */
async function endInterrupted(
  command: BaseCommand,
  measured: BenchReport,
  { ending, exitCode }: { readonly ending: Ending; readonly exitCode: number },
): Promise<never> {
  const report = { ...measured, partial: true, gate: null };
  for (const error of await show(command, report, ending)) command.warn(error.message);
  const error = new UserError(
    'aborted',
    'Interrupted: the report holds what was measured so far; nothing was decided, and no baseline was saved.',
  );
  return command.failWithResult(error, report, exitCode);
}

async function show(command: BaseCommand, report: BenchReport, ending: Ending): Promise<readonly FdqError[]> {
  const { plan, github } = ending;
  for (const warning of report.warnings) command.warn(warning);
  if (plan.stdout !== null) process.stdout.write(await plan.stdout(report, terminalWidth()));
  if (plan.github) tellGithub(command, report, github);
  return writeFiles(report, ending);
}

/** A baseline that a run was found worse than is not replaced by that run: the next one would pass. */
async function keepBaseline(
  command: BaseCommand,
  report: BenchReport,
  { gate }: Ending,
): Promise<readonly FdqError[]> {
  const file = gate.saveBaseline;
  if (file === null) return [];
  const isSame = gate.baseline !== null && path.resolve(gate.baseline.file) === path.resolve(file);
  if (isSame && report.gate !== null && report.gate.verdict !== 'pass') {
    command.warn(`${file} is kept as it was: this run did not pass against it.`);
    return [];
  }
  return collectErrors([() => saveBaseline(report, file)]);
}

function terminalWidth(): number {
  return process.stdout.isTTY ? process.stdout.columns : Infinity;
}

async function writeFiles(
  report: BenchReport,
  { plan, html, unsaved }: Ending,
): Promise<readonly FdqError[]> {
  const page = html === undefined ? [] : [{ file: html, render: renderHtml }];
  const errors = await collectErrors(
    [...plan.files, ...page].map(({ file, render }) => async () => {
      writeFileWhole(file, await render(report, Infinity));
    }),
  );
  return [...unsaved, ...errors];
}

/** Every file is tried: one that fails loses no other. */
async function collectErrors(writes: readonly (() => Promise<void> | void)[]): Promise<readonly FdqError[]> {
  const errors: FdqError[] = [];
  for (const write of writes) {
    try {
      await write();
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

const MORE_TIME = 'Give it more time, a quieter machine or a wider limit.';

function gateErrors(report: BenchReport, { baseline, baselineCommand }: GateOptions): readonly FdqError[] {
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
          suggestions: [
            baseline === null
              ? 'Where it is meant so, change the condition of --fail-if.'
              : 'Where the change is wanted, write the baseline again with --save-baseline.',
          ],
        })
      : new UserError('inconclusive', message, {
          param: 'fail-if',
          suggestions: adviseUndecided(report, gate, baselineCommand !== null),
        }),
  ];
}

function adviseUndecided({ kind }: BenchReport, gate: GateResult, isInTurns: boolean): readonly string[] {
  if (isInTurns) return [MORE_TIME];
  const flag = kind === 'speed' ? '-r' : '--repetitions';
  return [
    hasFewSamples(gate)
      ? `Measure five times or more (${flag} 5), the baseline too: write it again with --save-baseline.`
      : kind === 'speed'
        ? MORE_TIME
        : `Measure more often (${flag}), on a quieter machine or with a wider limit.`,
    ...(kind === 'speed' ? ['Compare both builds in turns with --baseline-command.'] : []),
  ];
}

/** Whether all that is undecided is so because of a number of samples, which neither time nor a quiet machine mends. */
function hasFewSamples({ checks }: GateResult): boolean {
  return checks
    .filter(({ verdict }) => verdict === 'inconclusive')
    .every(({ change, changeInterval }) => change !== null && changeInterval === null);
}
