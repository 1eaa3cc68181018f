import type { DataType } from '../graph/ir.js';
import type { LayerKind } from './plan-layers.js';

/** What became of one weight matrix of a checkpoint. */
export interface LayerReport {
  /** Unfused checkpoint name without `.weight`, e.g. `model.layers.0.self_attn.q_proj`. */
  readonly name: string;
  /** The checkpoint's tensor. */
  readonly tensor: string;
  /** What the matrix is for; absent: linear. */
  readonly kind?: LayerKind | undefined;
  /** Graph node that computes the layer. */
  readonly node: string;
  /** [n, k] */
  readonly shape: readonly number[];
  readonly storedType: DataType;
  /** Canonical name; `none` for a layer left as stored. */
  readonly scheme: string;
  /** The rule that decided. */
  readonly reason: string;
  /** In the checkpoint. */
  readonly bytesBefore: number;
  /** In memory, padding and scales included. */
  readonly bytesAfter: number;
}

export interface SchemeTotals {
  readonly scheme: string;
  readonly layers: number;
  readonly parameters: number;
  readonly bytesBefore: number;
  readonly bytesAfter: number;
}

/** Layers that are left as stored for the same reason. */
export interface KeptLayers {
  readonly reason: string;
  readonly layers: number;
  /** The first few names. */
  readonly examples: readonly string[];
}

export interface QuantizationSummary {
  readonly layers: number;
  readonly quantizedLayers: number;
  readonly parameters: number;
  readonly bytesBefore: number;
  readonly bytesAfter: number;
  /** Bits a parameter takes over all layers, scales and padding included; 0 without layers. */
  readonly bitsPerParameter: number;
  /** In the order the schemes first appear. */
  readonly schemes: readonly SchemeTotals[];
  readonly kept: readonly KeptLayers[];
}

const MAX_EXAMPLES = 3;

/** Totals of a model. A tensor that several layers share with the same outcome is counted once. */
export function summarizeQuantization(reports: readonly LayerReport[]): QuantizationSummary {
  const unique = [
    ...new Map(reports.map((report) => [`${report.scheme} ${report.tensor}`, report])).values(),
  ];
  const names = [...new Set(unique.map(({ scheme }) => scheme))];
  const total = totalsOf('', unique);
  return {
    layers: total.layers,
    quantizedLayers: unique.filter(({ scheme }) => scheme !== 'none').length,
    parameters: total.parameters,
    bytesBefore: total.bytesBefore,
    bytesAfter: total.bytesAfter,
    bitsPerParameter: total.parameters === 0 ? 0 : (8 * total.bytesAfter) / total.parameters,
    schemes: names.map((name) =>
      totalsOf(
        name,
        unique.filter(({ scheme }) => scheme === name),
      ),
    ),
    kept: keptLayers(unique),
  };
}

function totalsOf(scheme: string, reports: readonly LayerReport[]): SchemeTotals {
  const sum = (value: (report: LayerReport) => number): number =>
    reports.reduce((total, report) => total + value(report), 0);
  return {
    scheme,
    layers: reports.length,
    parameters: sum(({ shape }) => shape.reduce((product, size) => product * size, 1)),
    bytesBefore: sum(({ bytesBefore }) => bytesBefore),
    bytesAfter: sum(({ bytesAfter }) => bytesAfter),
  };
}

function keptLayers(reports: readonly LayerReport[]): readonly KeptLayers[] {
  const kept = reports.filter(({ scheme }) => scheme === 'none');
  return [...new Set(kept.map(({ reason }) => reason))].map((reason) => {
    const names = kept.filter((report) => report.reason === reason).map(({ name }) => name);
    return { reason, layers: names.length, examples: names.slice(0, MAX_EXAMPLES) };
  });
}
