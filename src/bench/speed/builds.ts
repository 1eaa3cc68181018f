import process from 'node:process';
import { withoutFlags } from '../../cli/forwarded-args.js';
import type { FlagTable } from '../../cli/flag-row.js';
import type { ComparedBuilds } from '../gate/compare-commands.js';
import type { BaselineCommand } from '../gate/options.js';

/**
 * This build and another one, both measuring what a command line of `fdq bench` asks for.
 * @param argv words after `bench`
 * @param table all flags of the command
 * @param own flags that are about the comparison and its report
 */
export function comparedBuilds(
  argv: readonly string[],
  baseline: BaselineCommand,
  { table, own }: { readonly table: FlagTable; readonly own: FlagTable },
): ComparedBuilds {
  const shared = withoutFlags(argv, table, new Set([...Object.keys(own), 'json']));
  const program = process.argv[1] ?? 'fdq';
  return {
    now: { text: program, file: process.execPath, args: [program, 'bench', ...shared] },
    baseline: { text: baseline.text, file: baseline.file, args: [...baseline.args, 'bench', ...shared] },
  };
}
