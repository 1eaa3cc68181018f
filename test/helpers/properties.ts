import process from 'node:process';
import fc from 'fast-check';

/**
 * Properties are tried on the same cases in every run: what fails fails again, and what passed does not fail by chance.
 * FDQ_FUZZ_SEED looks at others.
 */
fc.configureGlobal({ seed: Number(process.env['FDQ_FUZZ_SEED'] ?? 20_261_121) });

export { fc };
