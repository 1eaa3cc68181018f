import process from 'node:process';
import pino, { type Logger } from 'pino';
import { printable } from './render.js';

export interface LoggerOptions {
  readonly level: string;
  readonly format: 'text' | 'json';
}

/** Level names of other servers, as pino calls them. */
const LEVELS: Readonly<Record<string, string>> = { warning: 'warn', critical: 'fatal' };

/** Logs to stderr: a JSON object a line, or `time LEVEL message key=value ...`. */
export function createLogger({ level, format }: LoggerOptions): Logger {
  const settings = { level: LEVELS[level] ?? level, base: null };
  const write =
    format === 'json'
      ? (line: string): void => void process.stderr.write(line)
      : (line: string): void => void process.stderr.write(formatLogLine(line));
  return pino(settings, { write });
}

/** One line of pino's JSON for people. Values of unknown origin cannot break the line or the terminal. */
export function formatLogLine(json: string): string {
  const { time, level, msg, ...fields } = JSON.parse(json) as Record<string, unknown>;
  const name = pino.levels.labels[Number(level)] ?? String(level);
  const words = [
    new Date(Number(time)).toISOString(),
    name.toUpperCase(),
    ...(typeof msg === 'string' ? [msg] : []),
    ...Object.entries(fields).map(([key, value]) => `${key}=${fieldText(value)}`),
  ];
  return `${printable(words.join(' ')).replaceAll('\n', '\\n')}\n`;
}

function fieldText(value: unknown): string {
  if (typeof value === 'string') return /^[\w.:/@+-]+$/.test(value) ? value : JSON.stringify(value);
  return JSON.stringify(value);
}
