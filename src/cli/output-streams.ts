import process from 'node:process';
import type { Hook } from '@oclif/core';
import { UserError } from '../errors.js';
import { renderErrorReport, toErrorReport } from './error-report.js';

/** What systems say of a stream, in words. */
const REASONS: Readonly<Record<string, string>> = {
  ENOSPC: 'no space is left on the device',
  EDQUOT: 'the disk quota is used up',
  EIO: 'the device reported an error',
  EFBIG: 'the file would become too large',
};

/** A reader that has enough, as in `| head -1`, is no failure. */
const READER_GONE = 'EPIPE';

/**
 * oclif hook before every command: a result that cannot be written ends the process with `write_failed`, and one whose
 * reader left ends nothing. Lines for people that cannot be written are lost: neither a server nor a measurement
 * depends on who reads them.
 */
const watchOutputStreams: Hook.Init = function (): Promise<void> {
  process.stderr.on('error', () => undefined);
  let told: number | undefined;
  const tell = (cause: NodeJS.ErrnoException): number => {
    if (told !== undefined || cause.code === READER_GONE) return told ?? 0;
    const error = writeFailed(cause);
    process.stderr.write(renderErrorReport(toErrorReport(error), false));
    told = error.exitCode;
    return told;
  };
  // Before oclif's own listener, which throws.
  process.stdout.prependListener('error', (cause: NodeJS.ErrnoException) => {
    const exitCode = tell(cause);
    if (exitCode !== 0) process.exit(exitCode);
  });
  // A command that ends the process does so before the stream tells; what it found keeps its exit code.
  process.once('exit', (code) => {
    const { errored } = process.stdout;
    if (errored === null) return;
    const exitCode = tell(errored);
    if (code === 0) process.exitCode = exitCode;
  });
  return Promise.resolve();
};

function writeFailed(cause: NodeJS.ErrnoException): UserError {
  const { code = 'unknown error' } = cause;
  const reason = REASONS[code];
  const what = reason === undefined ? cause.message : `${reason} (${code})`;
  return new UserError('write_failed', `Cannot write to the standard output: ${what}.`, {
    suggestions: ['Free some space, or send the output elsewhere.'],
    cause,
  });
}

export default watchOutputStreams;
