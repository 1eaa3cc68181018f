import type { UnsupportedError } from '../../errors.js';
import { elementTypeOf } from '../../graph/data-types.js';
import { findGraphProblem } from '../../graph/validate.js';
import { invalidModel } from '../../graph/onnx-problems.js';
import type { DataType, Graph, GraphNode, ValueInfo } from '../../graph/ir.js';
import { FDQ_DOMAIN, OPSETS } from '../../models/blocks/context.js';
import type { DecoderInfo } from '../../models/architecture.js';
import type { LayerReport } from '../../quant/report.js';
import { numberOf, type Draft } from './draft.js';
import type { GenaiConfig } from './genai-config.js';
import { refuseModel, refuseNode } from './problems.js';
import { findOperator } from './row-operators.js';

/** Inputs of a decoder graph; see src/models/architecture.ts. */
const INPUTS: readonly ValueInfo[] = [
  { name: 'input_ids', dataType: 'int64', shape: ['tokens'] },
  { name: 'positions', dataType: 'int32', shape: ['tokens'] },
  { name: 'query_starts', dataType: 'int32', shape: ['sequences_plus_1'] },
  { name: 'context_lengths', dataType: 'int32', shape: ['sequences'] },
  { name: 'block_tables', dataType: 'int32', shape: ['sequences', 'max_blocks'] },
  { name: 'logit_indices', dataType: 'int64', shape: ['rows'] },
];
const LOGITS = 'logits';
const FLOAT8 = elementTypeOf('float8e4m3fn');
/** Multiply hidden rows with the output matrix. */
const HEADS = new Set(['MatMul', 'Gemm', 'MatMulNBits']);

export interface PackedDecoder {
  readonly graph: Graph;
  readonly info: DecoderInfo;
  /** Layers that the model has quantized already, in graph order. */
  readonly stored: readonly LayerReport[];
}

/**
 * A decoder over [batch, sequence] with past and present keys and values, as the decoder over packed tokens and a
 * paged pool that the engine feeds. What computes lengths and masks disappears, and so do rows without wanted logits.
 * No weight is read: those of linear layers become lazy, of kind 'weight'.
 * @throws UnsupportedError `unsupported_model` naming the first node that is not understood, and what it does
 */
export function packDecoder(source: Graph, config: GenaiConfig): PackedDecoder {
  const producers = new Map(
    source.nodes.flatMap((node) => node.outputs.map((name) => [name, node] as const)),
  );
  for (const name of [config.inputIds, config.attentionMask]) {
    if (!source.inputs.some((input) => input.name === name)) throw refuseModel(`it has no input "${name}"`);
  }
  const draft: Draft = {
    source,
    config: { ...config },
    producers,
    head: findHead(source, producers, config),
    nodes: [],
    initializers: new Map(),
    values: new Map(),
    rows: new Map(),
    weights: new Map(),
    rotaries: new Map(),
    stored: [],
  };
  const needed = findNeeded(draft);
  for (const node of source.nodes) {
    if (!needed.has(node)) continue;
    try {
      emitNode(draft, node);
    } catch (error) {
      throw findRounding(source) ?? error;
    }
  }
  const graph = finishGraph(draft);
  return { graph, info: describeDecoder(draft), stored: draft.stored };
}

function emitNode(draft: Draft, node: GraphNode): void {
  const operator = findOperator(node);
  if (operator === undefined)
    throw refuseNode(node, 'is an operator fdq does not know between tokens and logits');
  operator.emit(draft, node);
}

/**
 * The refusal of standard operators that round what they read to 8 bits: they would run in float32, several passes over
 * each row, beside the kernels fdq has for such layers.
 */
function findRounding({ nodes }: Graph): UnsupportedError | undefined {
  const node = nodes.find(({ domain, opType, attributes }) => {
    const to = attributes['to'];
    const isFloat8 = opType === 'Cast' && to?.type === 'int' && to.value === FLOAT8;
    return domain === '' && (isFloat8 || opType === 'Round');
  });
  if (node === undefined) return undefined;
  return refuseNode(
    node,
    'rounds the input of a layer to 8 bits, as w8a8 and the FP8 schemes of fdq convert --format onnx do with standard operators',
    [
      'Serve the checkpoint in that scheme: fdq serve CHECKPOINT --quantization w8a8.',
      'Or convert it for fdq: fdq convert CHECKPOINT --format fdq.',
      'For any ONNX Runtime and fdq alike use a scheme of weights alone: wint8 or wint4.',
    ],
  );
}

/** The node whose input rows become logits: what comes after it works on each logit or row by itself. */
function findHead(
  source: Graph,
  producers: ReadonlyMap<string, GraphNode>,
  { logits }: GenaiConfig,
): GraphNode {
  if (!source.outputs.some(({ name }) => name === logits)) throw refuseModel(`it has no output "${logits}"`);
  let node = producers.get(logits);
  while (node !== undefined && !HEADS.has(node.opType)) {
    const [input] = node.inputs.filter((name) => name !== '' && !source.initializers.has(name));
    node = producers.get(input ?? '');
  }
  if (node === undefined)
    throw refuseModel(`"${logits}" is not the product of hidden rows and an output matrix`);
  return node;
}

/** Nodes that carry rows from the ids to the logits. */
function findNeeded(draft: Draft): ReadonlySet<GraphNode> {
  const needed = new Set<GraphNode>();
  const queue = [draft.config.logits];
  for (let name = queue.pop(); name !== undefined; name = queue.pop()) {
    const node = draft.producers.get(name);
    if (node === undefined || needed.has(node)) continue;
    needed.add(node);
    queue.push(...(findOperator(node)?.reads(draft, node) ?? []));
  }
  return needed;
}

function finishGraph(draft: Draft): Graph {
  const { source, config } = draft;
  const logits = draft.rows.get(config.logits);
  if (logits?.rows !== 'rows' || logits.dataType !== 'float32') {
    throw refuseModel(`"${config.logits}" is not computed row by row in float32`);
  }
  if (logits.columns !== config.vocabSize) {
    throw refuseModel(`it gives ${logits.columns} logits where genai_config.json says ${config.vocabSize}`);
  }
  const rename = (name: string): string =>
    name === logits.name ? LOGITS : name === config.inputIds ? 'input_ids' : name;
  const values = new Map(draft.values);
  values.delete(logits.name);
  const used = new Set(draft.nodes.map(({ domain }) => domain));
  const graph: Graph = {
    name: source.name,
    opsets: new Map(
      [...OPSETS, ...source.opsets].filter(([domain]) => used.has(domain) || domain === FDQ_DOMAIN),
    ),
    inputs: INPUTS,
    outputs: [{ name: LOGITS, dataType: 'float32', shape: ['rows', logits.columns] }],
    nodes: draft.nodes.map((node) => ({
      ...node,
      inputs: node.inputs.map(rename),
      outputs: node.outputs.map(rename),
    })),
    initializers: draft.initializers,
    values,
    metadata: source.metadata,
  };
  const problem = findGraphProblem(graph);
  if (problem !== undefined) throw invalidModel(`The ONNX decoder cannot be packed: ${problem}`);
  return graph;
}

function describeDecoder({ nodes, config, initializers }: Draft): DecoderInfo {
  const attention = nodes.filter(
    ({ domain, opType }) => domain === FDQ_DOMAIN && opType === 'PagedAttention',
  );
  const { numLayers, vocabSize, hiddenSize, numHeads, numKvHeads, headDim, type } = config;
  if (attention.length !== numLayers) {
    throw refuseModel(
      `it has ${attention.length} attention layers where genai_config.json says ${numLayers}`,
    );
  }
  const windows = attention.map((node) => numberOf(node, 'window', 0));
  const gathers = nodes.filter(({ opType }) => opType === 'Gather');
  const tables = gathers.flatMap(({ inputs }) =>
    inputs[1] === 'positions' ? (initializers.get(inputs[0] as string) ?? []) : [],
  );
  const embedding = gathers.find(({ inputs }) => inputs[1] === config.inputIds)?.inputs[0] ?? '';
  const readers = nodes.filter(({ inputs }) => inputs.includes(embedding));
  return {
    architecture: type,
    vocabSize,
    hiddenSize,
    numLayers,
    numHeads,
    numKvHeads,
    headDim,
    maxPositions: Math.min(config.contextLength, ...tables.map(({ shape }) => shape[0] as number)),
    ...(windows.includes(0) ? {} : { slidingWindow: Math.max(...windows) }),
    tiedEmbeddings: readers.length > 1,
    storedDataType: storedTypeOf(initializers.get(embedding)?.dataType),
  };
}

/** An embedding that is quantized already stands for float32 values. */
function storedTypeOf(dataType: DataType | undefined): DataType {
  return dataType === 'float16' || dataType === 'bfloat16' ? dataType : 'float32';
}
