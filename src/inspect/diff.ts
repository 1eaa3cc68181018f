import { counted } from '../counted.js';
import { formatBytes, printable } from '../cli/render.js';
import { formatQuantity } from './columns.js';
import type { InspectReport, LayerRow } from './report.js';

export const DIFF_SCHEMA = 'fdq-inspect-diff/1';

/** What differs between two models or plans. */
export interface InspectDiff {
  readonly schema: typeof DIFF_SCHEMA;
  readonly before: DiffSide;
  readonly after: DiffSide;
  /** Layers that differ, in the order of the graph; those of one side alone have null on the other. */
  readonly layers: readonly LayerDiff[];
  readonly sameLayers: number;
}

export interface DiffSide {
  readonly reference: string;
  readonly scheme: string;
  readonly weightBytes: number;
  readonly kvCacheDtype: string | null;
}

export interface LayerDiff {
  readonly name: string;
  readonly before: DiffedLayer | null;
  readonly after: DiffedLayer | null;
}

/** What is compared; the relative error only where both sides were measured. */
export interface DiffedLayer extends Pick<
  LayerRow,
  'shape' | 'storedType' | 'scheme' | 'bytesAfter' | 'kernel'
> {
  readonly frobenius: number | null;
}

/** Compares two reports layer by layer, by name. */
export function diffReports(before: InspectReport, after: InspectReport): InspectDiff {
  const old = new Map(before.layers.map((row) => [row.name, row]));
  const fresh = new Map(after.layers.map((row) => [row.name, row]));
  const names = [...new Set([...fresh.keys(), ...old.keys()])];
  const layers = names.map((name) => pair(name, old.get(name), fresh.get(name)));
  const different = layers.filter((layer) => JSON.stringify(layer.before) !== JSON.stringify(layer.after));
  return {
    schema: DIFF_SCHEMA,
    before: sideOf(before),
    after: sideOf(after),
    layers: different,
    sameLayers: layers.length - different.length,
  };
}

/** The differences as lines for people. */
export function renderDiff(diff: InspectDiff): string {
  const { before, after, layers, sameLayers } = diff;
  const change =
    before.weightBytes === 0 ? 0 : (100 * (after.weightBytes - before.weightBytes)) / before.weightBytes;
  const lines = [
    `--- ${before.reference} (${before.scheme})`,
    `+++ ${after.reference} (${after.scheme})`,
    `Weights: ${formatBytes(before.weightBytes)} → ${formatBytes(after.weightBytes)} (${change >= 0 ? '+' : ''}${change.toFixed(1)} %)`,
  ];
  if (before.kvCacheDtype !== after.kvCacheDtype) {
    lines.push(`KV cache: ${before.kvCacheDtype ?? 'unknown'} → ${after.kvCacheDtype ?? 'unknown'}`);
  }
  for (const { name, before: from, after: to } of layers) {
    if (from === null) lines.push(`+ ${name}: ${to === null ? '' : describe(to)}`);
    else if (to === null) lines.push(`- ${name}: ${describe(from)}`);
    else lines.push(`  ${name}: ${describe(from)} → ${describe(to)}`);
  }
  lines.push(
    `${counted(layers.length, 'layer differs', 'layers differ')}, ${sameLayers} ${sameLayers === 1 ? 'is' : 'are'} the same.`,
  );
  return printable(lines.map((line) => line.replaceAll('\n', '\\n')).join('\n'));
}

function describe({ scheme, bytesAfter, shape, frobenius }: DiffedLayer): string {
  const error = frobenius === null ? '' : `, error ${formatQuantity('share', frobenius)}`;
  return `${scheme} [${shape.join(', ')}] ${formatBytes(bytesAfter)}${error}`;
}

function pair(name: string, before: LayerRow | undefined, after: LayerRow | undefined): LayerDiff {
  const isMeasured = (before?.error ?? null) !== null && (after?.error ?? null) !== null;
  const pick = (row: LayerRow | undefined): DiffedLayer | null =>
    row === undefined
      ? null
      : {
          shape: row.shape,
          storedType: row.storedType,
          scheme: row.scheme,
          bytesAfter: row.bytesAfter,
          kernel: row.kernel,
          frobenius: isMeasured ? (row.error?.frobenius ?? null) : null,
        };
  return { name, before: pick(before), after: pick(after) };
}

function sideOf({ model, scheme, totals, arithmetic }: InspectReport): DiffSide {
  return {
    reference: model.reference,
    scheme,
    weightBytes: totals.bytesAfter,
    kvCacheDtype: arithmetic?.kvCacheDtype ?? null,
  };
}
