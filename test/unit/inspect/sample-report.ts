import { REPORT_SCHEMA, type InspectReport, type LayerRow } from '../../../src/inspect/report.js';

export function sampleRow(name: string, extra: Partial<LayerRow> = {}): LayerRow {
  return {
    name,
    tensor: `${name}.weight`,
    kind: 'linear',
    shape: [64, 32],
    storedType: 'bfloat16',
    scheme: 'wint4',
    precision: 'W4A16',
    bytesBefore: 4096,
    bytesAfter: 1280,
    rule: 'rule 6: everything else → wint4',
    kernel: 'fdq avx2: int4 × float32',
    error: null,
    ...extra,
  };
}

export function sampleReport(layers: readonly LayerRow[], extra: Partial<InspectReport> = {}): InspectReport {
  return {
    schema: REPORT_SCHEMA,
    model: {
      reference: './model',
      path: '/model',
      kind: 'checkpoint',
      architecture: 'LlamaForCausalLM',
      revision: null,
      parameters: 4096,
      storedBytes: 8192,
    },
    scheme: 'wint4',
    arithmetic: {
      compute: 'float32',
      kvCacheDtype: 'bfloat16',
      kvBytesPerToken: 512,
      provider: 'cpu',
      isa: 'avx2',
    },
    layers,
    others: { tensors: 1, parameters: 32, bytesBefore: 64, bytesAfter: 128 },
    totals: {
      layers: layers.length,
      quantizedLayers: layers.length,
      bytesBefore: 8192,
      bytesAfter: 2560,
      bitsPerWeight: 5,
      error: null,
    },
    memory: null,
    alternatives: [],
    warnings: [],
    ...extra,
  };
}

export function sampleError(frobenius: number): NonNullable<LayerRow['error']> {
  return {
    frobenius,
    maxAbs: frobenius / 2,
    sqnrDb: frobenius === 0 ? Infinity : -20 * Math.log10(frobenius),
    cosine: 1 - frobenius ** 2 / 2,
    saturated: 0,
    zeroScales: 0,
  };
}
