import { readFile, stat } from 'node:fs/promises';
import path from 'node:path';
import { UserError } from '../errors.js';
import type { Graph, GraphNode, Initializer } from '../graph/ir.js';
import { parseModel } from '../graph/onnx.js';
import { listInitializers, listScopes, type Scope } from '../graph/scopes.js';
import { describeNode, totalsOf } from './describe-checkpoint.js';
import { countWeights } from './columns.js';
import { partBytes, readOnnxLayers, type OnnxContext, type OnnxLayer } from './onnx-operators.js';
import type { OnnxPlan } from './plan-onnx.js';
import {
  REPORT_SCHEMA,
  type InspectReport,
  type LayerRow,
  type ModelFacts,
  type WeightGroup,
} from './report.js';
import type { IsaName } from '../runtime/addon.js';

/** Protobuf holds at most this. */
const MAX_MODEL_BYTES = 2 ** 31 - 1;
const WEIGHT_SUFFIX = /\.weight$/;
const NOTHING = { tensors: 0, parameters: 0, bytesBefore: 0, bytesAfter: 0 } as const;

/**
 * Reads the graph of an ONNX model; weights in external files are not read.
 * @throws UserError `model_not_found`; `invalid_checkpoint` or UnsupportedError as `parseModel`
 */
export async function openOnnx(file: string): Promise<Graph> {
  try {
    const { size } = await stat(file);
    if (size > MAX_MODEL_BYTES) throw new Error(`it has ${size} bytes, more than protobuf can hold`);
    return parseModel(await readFile(file), { dir: path.dirname(file), file });
  } catch (cause) {
    if (cause instanceof UserError) throw cause;
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') throw missingFile(file, cause);
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new UserError('model_not_found', `Cannot read the ONNX model ${JSON.stringify(file)}: ${reason}.`, {
      param: file,
      suggestions: ['Give the .onnx file itself, with its external data beside it.'],
      cause,
    });
  }
}

function missingFile(file: string, cause: unknown): UserError {
  return new UserError('model_not_found', `There is no file ${JSON.stringify(file)}.`, {
    param: file,
    suggestions: ['Give the path of an .onnx file, with its external data beside it.'],
    cause,
  });
}

/**
 * The report of an ONNX model, whoever quantized it, from the graph alone.
 * @param planned what flags would make of it; absent: it is shown as it is
 */
export function describeOnnx(
  graph: Graph,
  model: Pick<ModelFacts, 'reference' | 'path'>,
  isa: IsaName,
  planned?: OnnxPlan,
): InspectReport {
  const parts = new Set(planned?.matrices);
  const layers = listScopes(graph).flatMap((scope) => {
    const context = contextOf(graph, scope);
    return scope.graph.nodes.flatMap((node) => {
      const rows = planned?.rows.get(node.name);
      if (rows !== undefined) return rows;
      return readOnnxLayers(node, context).map((layer) => {
        for (const part of layer.parts) parts.add(part);
        return describeLayer(layer, isa);
      });
    });
  });
  const all = listInitializers(graph);
  const rest = groupOf(all.filter((initializer) => !parts.has(initializer)));
  const bytesInLayers = totalsOf(layers, { others: NOTHING }).bytesAfter;
  const others = { ...rest, ...(planned && { bytesAfter: planned.weightBytes - bytesInLayers }) };
  const quantized = [...new Set(layers.map(({ scheme }) => scheme).filter((scheme) => scheme !== 'none'))];
  return {
    schema: REPORT_SCHEMA,
    model: {
      ...model,
      kind: 'onnx',
      architecture: graph.metadata.get('architecture') ?? null,
      revision: null,
      parameters: layers.reduce((sum, { shape }) => sum + countWeights(shape), others.parameters),
      storedBytes: partBytes(all),
    },
    scheme: planned?.scheme ?? (quantized.length === 0 ? 'none' : quantized.join('; ')),
    arithmetic: null,
    layers,
    others,
    totals: totalsOf(layers, { others, errors: planned?.errors }),
    memory: null,
    alternatives: [],
    warnings: [...warnings(graph), ...(planned?.warnings ?? [])],
  };
}

/** What nodes of a graph or a body may look up: what the graphs around it define, unless it hides that. */
function contextOf(graph: Graph, scope: Scope): OnnxContext {
  if (scope.outer === undefined) return { graph, producers: scope.producers };
  const around = contextOf(graph, scope.outer);
  const initializers = new Map([...around.graph.initializers, ...scope.graph.initializers]);
  const producers = new Map([...around.producers, ...scope.producers]);
  for (const name of scope.producers.keys()) initializers.delete(name);
  for (const name of scope.graph.initializers.keys()) producers.delete(name);
  return { graph: { ...graph, initializers }, producers };
}

function describeLayer({ node, parts, ...layer }: OnnxLayer, isa: IsaName): LayerRow {
  const name = (parts[0] as Initializer).name;
  const bytes = partBytes(parts);
  return {
    ...layer,
    name: layerName(node, name),
    tensor: name,
    bytesBefore: bytes,
    bytesAfter: bytes,
    rule: 'as the file has it',
    kernel: describeNode(node, isa),
    error: null,
  };
}

/** The weight's name where it says something, else that of the node. */
function layerName(node: GraphNode, weight: string): string {
  const isAnonymous = weight === '' || /^(?:onnx::\w+_\d+|\d+)$/.test(weight);
  return isAnonymous ? node.name : weight.replace(WEIGHT_SUFFIX, '');
}

function groupOf(initializers: readonly Initializer[]): WeightGroup {
  const bytes = partBytes(initializers);
  return {
    tensors: initializers.length,
    parameters: initializers.reduce((sum, { shape }) => sum + countWeights(shape), 0),
    bytesBefore: bytes,
    bytesAfter: bytes,
  };
}

/** Operators of domains that ONNX Runtime does not have by itself. */
function warnings(graph: Graph): readonly string[] {
  const known = new Set(['', 'com.microsoft', 'ai.onnx.ml', 'fdq']);
  const nodes = listScopes(graph).flatMap((scope) => scope.graph.nodes);
  const foreign = nodes.filter(({ domain }) => !known.has(domain));
  const names = [...new Set(foreign.map(({ domain, opType }) => `${domain}.${opType}`))];
  return names.length === 0
    ? []
    : [`The model needs custom operators, which fdq never loads from a model: ${names.join(', ')}.`];
}
