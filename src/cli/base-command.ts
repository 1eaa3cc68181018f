import process from 'node:process';
import { Command, Errors } from '@oclif/core';
import type { FdqError } from '../errors.js';
import { normaliseArgv, unknownFlag } from './argv.js';
import { findUnknownVariables } from './environment.js';
import { errorReportAsJson, renderErrorReport, toErrorReport } from './error-report.js';
import { toParserFlags, type FlagTable } from './flag-row.js';
import { toJson } from './json.js';
import { printable } from './render.js';
import { resolveSettings, type ParsedFlags, type Settings } from './settings.js';

/** What every command shares: settings from four sources, one error shape, the same exit code with --json. */
export abstract class BaseCommand extends Command {
  static override readonly enableJsonFlag: boolean = true;

  protected readonly warnings: string[] = [];

  /**
   * The command line over environment, config file and defaults.
   * @param positional flags that arguments set, computed from the parsed command line
   */
  protected async parseSettings<T extends FlagTable>(
    table: T,
    positional: (flags: ParsedFlags, args: ParsedFlags) => ParsedFlags = () => ({}),
  ): Promise<Settings<T>> {
    const { flags, args } = await this.parseCommandLine(table);
    // Like the config file, the environment says nothing to a command without settings.
    if (Object.keys(table).length > 0) {
      for (const { warning } of findUnknownVariables(process.env)) this.warn(warning);
    }
    return resolveSettings(table, {
      flags: { ...flags, ...positional(flags, args) },
      environment: process.env,
      configDir: this.config.configDir,
    });
  }

  /** Warnings go to stderr, and into the result of --json. */
  override warn(input: Error | string): Error | string {
    const line = typeof input === 'string' ? input : input.message;
    this.warnings.push(line);
    if (!this.jsonEnabled()) process.stderr.write(`Warning: ${line}\n`);
    return input;
  }

  override toSuccessJson(result: unknown): object {
    return { status: 0, result, warnings: this.warnings };
  }

  override logJson(json: unknown): void {
    process.stdout.write(`${toJson(json)}\n`);
  }

  /** Ends a command that failed a check: the result is printed all the same, for what failed is seen in it. */
  failWithResult(error: FdqError, result: object, exitCode: number = error.exitCode): never {
    const report = toErrorReport(error);
    const debug = isDebugging();
    if (this.jsonEnabled()) {
      process.stderr.write(`${printable(report.message)}\n`);
      this.logJson({
        status: exitCode,
        result,
        warnings: this.warnings,
        error: errorReportAsJson(report, debug),
      });
    } else {
      process.stderr.write(renderErrorReport(report, debug));
    }
    return this.exit(exitCode);
  }

  protected override catch(error: Error): Promise<never> {
    if (error instanceof Errors.ExitError) throw error;
    const report = toErrorReport(error);
    const debug = isDebugging();
    if (this.jsonEnabled()) {
      this.logJson({
        status: report.exitCode,
        error: errorReportAsJson(report, debug),
        warnings: this.warnings,
      });
    } else {
      process.stderr.write(renderErrorReport(report, debug));
    }
    return this.exit(report.exitCode);
  }

  /** What a command that was told to end fails with, whatever stopped because of it. */
  protected afterInterrupt(error: unknown, { aborted, reason }: AbortSignal): unknown {
    return aborted && !(error instanceof Errors.ExitError) ? reason : error;
  }

  private async parseCommandLine(table: FlagTable): Promise<{ flags: ParsedFlags; args: ParsedFlags }> {
    const argv = [...normaliseArgv(this.argv, table)];
    try {
      const { args, enableJsonFlag } = this.ctor;
      const parsed = await this.parse({ args, enableJsonFlag, flags: toParserFlags(table) }, argv);
      return { flags: parsed.flags, args: parsed.args };
    } catch (error) {
      throw asUnknownFlag(error, table) ?? error;
    }
  }
}

/** Stack traces are for people who ask for them. */
export function isDebugging(): boolean {
  const { FDQ_DEBUG, DEBUG } = process.env;
  return (
    (FDQ_DEBUG !== undefined && FDQ_DEBUG !== '' && FDQ_DEBUG !== '0') || DEBUG === '*' || DEBUG === 'fdq'
  );
}

/** Short flags that do not exist are found by the parser only. */
function asUnknownFlag(error: unknown, table: FlagTable): Error | undefined {
  const [flag] = (error as { readonly flags?: readonly string[] }).flags ?? [];
  return flag === undefined ? undefined : unknownFlag(flag.replace(/^-+/, ''), Object.keys(table));
}
