import process from 'node:process';
import { Errors, type Hook } from '@oclif/core';
import { UserError } from '../errors.js';
import { errorReportAsJson, renderErrorReport, toErrorReport } from './error-report.js';
import { toJson } from './json.js';
import { nearest } from './nearest.js';

/** What shells answer to a command that does not exist. */
const EXIT_UNKNOWN_COMMAND = 127;

/** oclif hook: names the nearest command and never asks. */
const commandNotFound: Hook.CommandNotFound = function ({ id, argv, config }): Promise<void> {
  const name = id.replaceAll(':', ' ');
  const guess = nearest(name, config.commandIDs);
  const error = new UserError('usage', `Unknown command ${name}.`, {
    param: name,
    suggestions: [guess === undefined ? 'See all commands with fdq --help.' : `Did you mean fdq ${guess}?`],
  });
  const report = { ...toErrorReport(error), exitCode: EXIT_UNKNOWN_COMMAND };
  if (argv?.includes('--json') === true) {
    process.stdout.write(
      `${toJson({ status: EXIT_UNKNOWN_COMMAND, error: errorReportAsJson(report, false) })}\n`,
    );
  } else {
    process.stderr.write(renderErrorReport(report, false));
  }
  return Promise.reject(new Errors.ExitError(EXIT_UNKNOWN_COMMAND));
};

export default commandNotFound;
