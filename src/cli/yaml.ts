import { createRequire } from 'node:module';
import type * as Yaml from 'yaml';

const require = createRequire(import.meta.url);

/** The YAML library, loaded when there is something to parse: most commands start without a file. */
export function loadYaml(): typeof Yaml {
  return require('yaml') as typeof Yaml;
}
