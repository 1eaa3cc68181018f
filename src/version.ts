import { createRequire } from 'node:module';

/** Version of this package. */
export const FDQ_VERSION = (createRequire(import.meta.url)('../package.json') as { readonly version: string })
  .version;
