import { writeFileWhole } from '../cli/write-file.js';

/**
 * Writes a config that `--quantization-config @FILE` reads.
 * @throws UserError `write_failed`
 */
export function saveQuantizationConfig(file: string, config: Readonly<Record<string, unknown>>): void {
  writeFileWhole(file, `${JSON.stringify(config, null, 2)}\n`);
}
