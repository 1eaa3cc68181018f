import process from 'node:process';

const OVERRIDES = '-dac_override,-dac_read_search';

/**
 * A command line whose process the modes of files apply to. Root is above them; without these two capabilities it is
 * not, and unlike another user it still reaches this checkout wherever that lies.
 */
export function unprivileged(command: readonly string[]): readonly [string, ...string[]] {
  const [program = '', ...args] = command;
  if (process.getuid?.() !== 0) return [program, ...args];
  return ['setpriv', `--bounding-set=${OVERRIDES}`, `--inh-caps=${OVERRIDES}`, program, ...args];
}
