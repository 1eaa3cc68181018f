import path from 'node:path';
import {
  convert,
  type ConvertObserver,
  type ConvertOptions,
  type ConvertReport,
} from '../../src/convert/convert.js';
import { fixtureFolder, fixtureOptions } from './fixture-model.js';

/** Options of a conversion, and who hears its warnings. */
type Changes = Partial<ConvertOptions & Pick<ConvertObserver, 'warn'>>;

/** Converts a model folder to `<folder>/out`, or wherever `changes` says. */
export function convertFolder(
  model: string,
  folder: string,
  quantization: string | undefined,
  { warn = () => undefined, ...changes }: Changes = {},
): Promise<ConvertReport> {
  const load = { ...fixtureOptions(model), ...(quantization === undefined ? {} : { quantization }) };
  const options: ConvertOptions = {
    load,
    output: path.join(folder, 'out'),
    format: 'fdq',
    force: false,
    verify: false,
    signal: new AbortController().signal,
    ...changes,
  };
  return convert(options, { phase: () => undefined, warn });
}

export function convertFixture(
  name: string,
  folder: string,
  quantization: string | undefined,
  changes: Changes = {},
): Promise<ConvertReport> {
  return convertFolder(fixtureFolder(name), folder, quantization, changes);
}
