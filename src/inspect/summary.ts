import { counted } from '../counted.js';
import { formatBytes } from '../cli/render.js';
import { formatQuantity } from './columns.js';
import type { InspectReport, MemoryForecast } from './report.js';

/** Facts about a whole model as lines of a name and a value; values may hold control characters. */
export function summarize(report: InspectReport): readonly (readonly [string, string])[] {
  const { model, totals, others, arithmetic, memory } = report;
  return [
    ['Model', `${model.reference}${model.architecture === null ? '' : ` (${model.architecture})`}`],
    [
      'Parameters',
      `${formatCount(model.parameters)}, ${formatBytes(model.storedBytes)} in the model's files`,
    ],
    ['Scheme', report.scheme],
    ['Layers', `${totals.layers}, of which ${totals.quantizedLayers} quantized`],
    [
      'Weights',
      `${formatBytes(totals.bytesBefore)} → ${formatBytes(totals.bytesAfter)}, ${totals.bitsPerWeight.toFixed(2)} bits a weight in layers`,
    ],
    ['Other weights', `${others.tensors} (norms, biases, tables), ${formatBytes(others.bytesAfter)}`],
    ...(totals.error === null ? [] : [['Error', describeError(totals.error)] as const]),
    ...(arithmetic === null
      ? []
      : ([
          ['KV cache', `${arithmetic.kvCacheDtype}, ${formatBytes(arithmetic.kvBytesPerToken)} a token`],
          ['Kernels', `${arithmetic.provider}, ${arithmetic.isa}, inputs in ${arithmetic.compute}`],
        ] as const)),
    ...(memory === null ? [] : describeMemory(memory)),
    ...fitting(report),
  ];
}

/** `1234567890` is `1.23 B`. */
export function formatCount(count: number): string {
  if (count >= 1e9) return `${(count / 1e9).toFixed(2)} B`;
  if (count >= 1e6) return `${(count / 1e6).toFixed(1)} M`;
  return String(count);
}

function describeError(error: NonNullable<InspectReport['totals']['error']>): string {
  const parts = [
    `${formatQuantity('share', error.frobenius)} of the norm`,
    `SQNR ${formatQuantity('decibel', error.sqnrDb)}`,
    `largest ${formatQuantity('number', error.maxAbs)}`,
    `${error.saturated} saturated`,
    `${error.zeroScales} zero scales`,
  ];
  return parts.join(', ');
}

function describeMemory(memory: MemoryForecast): readonly (readonly [string, string])[] {
  const { peakLoadBytes, peakServiceBytes, kvCacheTokens, usableBytes, availableBytes, problem } = memory;
  return [
    [
      'Memory',
      `${formatBytes(peakLoadBytes)} while loading, ${formatBytes(peakServiceBytes)} in service with a cache of ${counted(kvCacheTokens, 'token')}`,
    ],
    [
      'Machine',
      `${formatBytes(availableBytes)} available, ${formatBytes(usableBytes)} may be used: ${memory.fits ? 'fits' : (problem ?? 'does not fit while loading')}`,
    ],
  ];
}

/** What else could be chosen where the plan does not fit. */
function fitting({ memory, alternatives }: InspectReport): readonly (readonly [string, string])[] {
  if (memory === null || memory.fits) return [];
  const fits = alternatives.filter((alternative) => alternative.fits === true);
  const list = fits.map(({ scheme, weightBytes }) => `${scheme} (${formatBytes(weightBytes)})`);
  return [['Would fit', list.length === 0 ? 'no scheme' : list.join(', ')]];
}
