import { Errors } from '@oclif/core';
import { BugError, FdqError, UserError } from '../errors.js';
import { printable } from './render.js';

/** An error as it is shown, the same facts in text and in JSON. */
export interface ErrorReport {
  readonly code: string;
  readonly message: string;
  readonly param: string | undefined;
  readonly suggestions: readonly string[];
  /** Messages of the chain of causes, nearest first. */
  readonly causes: readonly string[];
  readonly exitCode: number;
  /** Shown only on request. */
  readonly stack: string | undefined;
}

/** Any thrown value as a report. What is not a known failure is a bug. */
export function toErrorReport(thrown: unknown): ErrorReport {
  const error = toFdqError(thrown);
  const source = thrown instanceof Error ? thrown : error;
  return {
    code: error.code,
    message: error.message,
    param: error.param,
    suggestions: error.suggestions,
    causes: causesOf(error),
    exitCode: error.exitCode,
    stack: source.stack,
  };
}

function toFdqError(thrown: unknown): FdqError {
  if (thrown instanceof FdqError) return thrown;
  if (thrown instanceof Errors.CLIError) return fromParser(thrown);
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  return new BugError(message === '' ? 'Unknown failure.' : message, thrown);
}

function fromParser(error: Error): UserError {
  const [first = '', second = ''] = error.message.split('\n');
  const message = first.endsWith(':') ? `${first} ${second.trim()}` : first;
  return new UserError('usage', /[.!?]$/.test(message) ? message : `${message}.`, {
    suggestions: ['See usage with --help.'],
  });
}

function causesOf(error: Error): readonly string[] {
  const messages: string[] = [];
  let cause = error.cause;
  while (cause instanceof Error && messages.length < 8) {
    if (cause.message !== '' && cause.message !== error.message) messages.push(cause.message);
    cause = cause.cause;
  }
  return messages;
}

/** What goes to stderr: the message, its code, what to do; causes and stack only for `debug`. */
export function renderErrorReport(report: ErrorReport, debug: boolean): string {
  const lines = [`Error: ${report.message}`, `Code: ${report.code}`];
  const [only, ...more] = report.suggestions;
  if (only !== undefined) {
    lines.push(...(more.length === 0 ? [`Try: ${only}`] : ['Try:', ...report.suggestions.map(listItem)]));
  }
  if (debug) {
    lines.push(...report.causes.map((cause) => `Caused by: ${cause}`));
    if (report.stack !== undefined) lines.push(report.stack);
  } else if (report.code === 'internal') {
    lines.push('Set FDQ_DEBUG=1 to see where it happened.');
  }
  return `${printable(lines.join('\n'))}\n`;
}

function listItem(text: string): string {
  return /^\d+\. /.test(text) ? `  ${text}` : `  - ${text}`;
}

/** The `error` member of `--json` output. */
export function errorReportAsJson(report: ErrorReport, debug: boolean): object {
  const { code, message, param, suggestions, causes, stack } = report;
  return { code, message, param: param ?? null, suggestions, causes, ...(debug ? { stack } : {}) };
}
