import { BUILT_IN } from './argv.js';
import { listFlags } from './config-keys.js';
import { environmentName } from './flag-row.js';
import { nearest } from './nearest.js';
import { REFUSED_FLAGS } from './refused-flags.js';
import { printable } from './render.js';

const PREFIX = 'FDQ_';

/** Variables that fdq, its addon and its command line framework read besides those of flags. */
const OTHER_VARIABLES = [
  'FDQ_DEBUG',
  'FDQ_ISA',
  'FDQ_CUDA_LIBRARY',
  'FDQ_TEST_COUNTS',
  'FDQ_CONFIG_DIR',
  'FDQ_DATA_DIR',
  'FDQ_CONTENT_TYPE',
  'FDQ_DISABLE_THEME',
  'FDQ_AC_BASH_SETUP_PATH',
  'FDQ_AC_ZSH_SETUP_PATH',
];

/**
 * What Kubernetes sets in every pod for a Service whose name begins with fdq; the address alone tells FDQ_X_PORT from a
 * setting. https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
 */
const SERVICE_LINK = /^FDQ_(\w+_)?(SERVICE_(HOST|PORT(_\w+)?)|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$/;
const SERVICE_ADDRESS = /^(tcp|udp|sctp):\/\//;

export interface UnknownVariable {
  readonly name: string;
  /** A sentence or two for the user. Never the value: it may be a key under a mistyped name. */
  readonly warning: string;
}

/** Variables named like a setting of fdq that no command reads. An empty one counts as not set. */
export function findUnknownVariables(
  environment: Readonly<Record<string, string | undefined>>,
): readonly UnknownVariable[] {
  const settings = listFlags().filter(([, row]) => row.commandLineOnly !== true);
  const known = new Set([...settings.map(([flag]) => environmentName(flag)), ...OTHER_VARIABLES]);
  return Object.entries(environment)
    .filter(([name, value]) => name.startsWith(PREFIX) && value !== undefined && value !== '')
    .filter(([name, value]) => !known.has(name) && !isServiceLink(name, value ?? ''))
    .map(([name]) => ({
      name,
      warning: `Unknown environment variable ${printable(name)}: ${explain(name, known)}`,
    }))
    .sort((a, b) => (a.name < b.name ? -1 : 1));
}

function isServiceLink(name: string, value: string): boolean {
  return SERVICE_LINK.test(name) || (name.endsWith('_PORT') && SERVICE_ADDRESS.test(value));
}

function explain(name: string, known: ReadonlySet<string>): string {
  const flag = flagName(name);
  const names = listFlags().map(([each]) => each);
  if (BUILT_IN.includes(flag) || (names.includes(flag) && !known.has(environmentName(flag)))) {
    return `--${flag} can only be given on the command line.`;
  }
  const reason = REFUSED_FLAGS[flag];
  if (reason !== undefined) return `--${flag} is not supported: ${reason}.`;
  const meant = findMeant(flag, known);
  return meant === undefined ? 'it has no effect.' : `it has no effect. Did you mean ${meant}?`;
}

function findMeant(flag: string, known: ReadonlySet<string>): string | undefined {
  const settings = listFlags().filter(([each]) => known.has(environmentName(each)));
  const [aliased] = settings.find(([, { aliases }]) => aliases?.includes(flag) === true) ?? [];
  if (aliased !== undefined) return environmentName(aliased);
  const [negated] = settings.find(([each, row]) => row.negatable === true && flag === `no-${each}`) ?? [];
  if (negated !== undefined) return `${environmentName(negated)}=false`;
  const guess = nearest(flag, [...known].map(flagName));
  return guess === undefined ? undefined : environmentName(guess);
}

/** `FDQ_MAX_MODEL_LEN` is of `max-model-len`. */
function flagName(variable: string): string {
  return variable.slice(PREFIX.length).replaceAll('_', '-').toLowerCase();
}
