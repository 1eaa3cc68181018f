import { writeFileSync } from 'node:fs';
import { UserError } from '../errors.js';

/**
 * Writes a config that `--quantization-config @FILE` reads.
 * @throws UserError `usage` when the file cannot be written
 */
export function saveQuantizationConfig(file: string, config: Readonly<Record<string, unknown>>): void {
  writeOutput(file, `${JSON.stringify(config, null, 2)}\n`, '--save-quantization-config');
}

/**
 * Writes a file the user named.
 * @param flag that names it, for messages
 * @throws UserError `usage`
 */
export function writeOutput(file: string, text: string, flag: string): void {
  try {
    writeFileSync(file, text);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new UserError('usage', `Expected ${flag} to name a file that can be written: ${reason}.`, {
      param: flag,
      suggestions: ['Choose a folder that exists and that this user may write to.'],
      cause,
    });
  }
}
