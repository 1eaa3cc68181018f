import { intAttribute } from '../../graph/builder.js';
import type { GraphNode, Initializer, WeightSource } from '../../graph/ir.js';
import { byteLengthOf, elementTypeOf } from '../../graph/data-types.js';
import { kindOfNames } from '../../quant/plan-layers.js';
import {
  addRows,
  findConstant,
  isInput,
  keepConstant,
  keepRow,
  numberOf,
  renameNode,
  rowsOf,
  type Draft,
  type RowValue,
} from './draft.js';
import { refuseNode } from './problems.js';

const FLOAT32 = elementTypeOf('float32');
const GEMM_NEUTRAL = { transA: 0, alpha: 1, beta: 1 } as const;

/** MatMul or Gemm with a constant weight → Gemm with the weight as [n, k], the unit the quantizer replaces. */
export function emitLinear(draft: Draft, node: GraphNode): void {
  const [input = '', operand = '', bias = ''] = node.inputs;
  for (const [name, neutral] of Object.entries(GEMM_NEUTRAL)) {
    const value = numberOf(node, name, neutral);
    if (value !== neutral) throw refuseNode(node, `has ${name} ${value}`);
  }
  const { weight, isTransposed } = resolveWeight(draft, node, operand);
  const [first = 0, second = 0] = weight.shape;
  const isRowMajor = isTransposed !== (numberOf(node, 'transB', 0) === 1);
  const [n, k] = isRowMajor ? [first, second] : [second, first];
  const x = pickRows(draft, node, input);
  if (x.columns !== k) throw refuseNode(node, `multiplies ${x.columns} columns with a weight of ${k}`);
  const name = addWeight(draft, node, weight, !isRowMajor);
  addRows(
    draft,
    {
      name: renameNode(node, 'Gemm'),
      domain: '',
      opType: 'Gemm',
      inputs: [x.name, name, ...(bias === '' ? [] : [keepRow(draft, node, bias, n)])],
      outputs: [node.outputs[0] as string],
      attributes: { transB: intAttribute(1) },
    },
    { dataType: 'float32', rows: x.rows, columns: n },
  );
}

/** MatMulNBits: a layer that is quantized already stays what it is. */
export function emitBlockLinear(draft: Draft, node: GraphNode): void {
  const [input = '', weight = '', ...rest] = node.inputs;
  const x = pickRows(draft, node, input);
  const k = numberOf(node, 'K', 0);
  const n = numberOf(node, 'N', 0);
  if (x.columns !== k) throw refuseNode(node, `multiplies ${x.columns} columns with a weight of ${k}`);
  const parts = [weight, ...rest].map((name) => (name === '' ? '' : keepConstant(draft, node, name)));
  addRows(draft, { ...node, inputs: [x.name, ...parts] }, { dataType: 'float32', rows: x.rows, columns: n });
  reportStored(draft, node, { parts: parts.slice(0, 3), shape: [n, k] });
}

/** Rows of a float embedding; what is not float32 is widened by a Cast behind it. */
export function emitGather(draft: Draft, node: GraphNode): void {
  const [table = '', ids = ''] = node.inputs;
  if (!isIds(draft, ids) || numberOf(node, 'axis', 0) !== 0) {
    throw refuseNode(node, `picks by "${ids}", not rows by ${draft.config.inputIds}`);
  }
  // A tied embedding is the transpose of the output matrix.
  const { weight, isTransposed } = resolveWeight(draft, node, table);
  const [rows = 0, columns = 0] = isTransposed ? [...weight.shape].reverse() : weight.shape;
  const { vocabSize, inputIds } = draft.config;
  if (rows < vocabSize) throw refuseNode(node, `has ${rows} rows for a vocabulary of ${vocabSize}`);
  addRows(
    draft,
    { ...node, inputs: [addWeight(draft, node, weight, isTransposed), inputIds] },
    { dataType: weight.dataType, rows: 'tokens', columns },
  );
}

/** GatherBlockQuantized: rows of an embedding that is quantized already. */
export function emitBlockGather(draft: Draft, node: GraphNode): void {
  const [table = '', ids = '', ...rest] = node.inputs;
  if (!isIds(draft, ids)) throw refuseNode(node, `picks by "${ids}", not by ${draft.config.inputIds}`);
  const { hiddenSize, vocabSize, inputIds } = draft.config;
  const parts = [table, ...rest].map((name) => (name === '' ? '' : keepConstant(draft, node, name)));
  addRows(
    draft,
    { ...node, inputs: [parts[0] as string, inputIds, ...parts.slice(1)] },
    {
      dataType: findConstant(draft, rest[0] ?? '')?.dataType ?? 'float32',
      rows: 'tokens',
      columns: hiddenSize,
    },
  );
  reportStored(draft, node, { parts, shape: [vocabSize, hiddenSize] });
}

function isIds(draft: Draft, value: string): boolean {
  return isInput(draft, value, draft.config.inputIds);
}

/** The input of a linear layer; the head reads only the rows whose logits are wanted. */
function pickRows(draft: Draft, node: GraphNode, input: string): RowValue {
  const x = rowsOf(draft, node, input);
  if (node !== draft.head) return x;
  const name = `${node.name}/logit_rows`;
  const picked = { ...x, name, rows: 'rows' } as const;
  addRows(
    draft,
    {
      name: `${name}/Gather`,
      domain: '',
      opType: 'Gather',
      inputs: [x.name, 'logit_indices'],
      outputs: [name],
      attributes: { axis: intAttribute(0) },
    },
    picked,
  );
  return picked;
}

/** The constant behind Transposes and widening Casts. */
function resolveWeight(
  draft: Draft,
  reader: GraphNode,
  operand: string,
): { readonly weight: Initializer; readonly isTransposed: boolean } {
  let name = operand;
  let isTransposed = false;
  for (let node = draft.producers.get(name); node !== undefined; node = draft.producers.get(name)) {
    const perm = node.attributes['perm'];
    const swaps = perm?.type !== 'ints' || perm.value.join() === '1,0';
    if (node.domain === '' && node.opType === 'Transpose' && swaps) isTransposed = !isTransposed;
    else if (node.domain !== '' || node.opType !== 'Cast' || numberOf(node, 'to', 0) !== FLOAT32) break;
    name = node.inputs[0] as string;
  }
  const weight = findConstant(draft, name);
  if (weight === undefined) throw refuseNode(reader, `needs "${operand}" to be a constant weight`);
  requireMatrix(reader, weight);
  return { weight, isTransposed };
}

function requireMatrix(node: GraphNode, { name, shape, dataType, data }: Initializer): void {
  const isFloat = dataType === 'float32' || dataType === 'float16' || dataType === 'bfloat16';
  if (shape.length !== 2 || !isFloat) {
    throw refuseNode(
      node,
      `has the weight "${name}", ${dataType} [${shape.join(', ')}], which is no float matrix`,
    );
  }
  if (data.kind !== 'external') {
    throw refuseNode(
      node,
      `has the weight "${name}" inside of the .onnx file; save the model with external data`,
    );
  }
}

/** Makes an external matrix the weight [n, k] of a layer. */
function addWeight(
  draft: Draft,
  node: GraphNode,
  { name, dataType, shape, data }: Initializer,
  transposed: boolean,
): string {
  const key = `${name}\n${transposed}`;
  const known = draft.weights.get(key);
  if (known !== undefined) return known;
  const wanted = `${layerNameOf(node, name)}.weight`;
  const weight = draft.initializers.has(wanted) ? name : wanted;
  const [first = 0, second = 0] = shape;
  const size = transposed ? [second, first] : [first, second];
  const place =
    data.kind === 'external' ? data : { file: '', offset: 0, byteLength: byteLengthOf(dataType, shape) };
  const source: WeightSource = {
    name: weight,
    dataType,
    shape: size,
    file: place.file,
    offset: place.offset,
    byteLength: place.byteLength,
    ...(transposed ? { transposed: true } : {}),
  };
  draft.initializers.set(weight, {
    name: weight,
    dataType,
    shape: size,
    data: { kind: 'weight', members: [source] },
  });
  draft.weights.set(key, weight);
  return weight;
}

/** `/model/layers.0/attn/q_proj/MatMul` is the layer `model.layers.0.attn.q_proj`; else the weight names it. */
function layerNameOf({ name }: GraphNode, weight: string): string {
  const path = name.split('/').filter((part) => part !== '');
  if (path.length > 1 && /^(?:MatMul|Gemm|Gather)/.test(path.at(-1) ?? ''))
    return path.slice(0, -1).join('.');
  return weight.replace(/(?:\.MatMul)?\.weight$/, '');
}

function reportStored(
  draft: Draft,
  node: GraphNode,
  { parts, shape }: { readonly parts: readonly string[]; readonly shape: readonly number[] },
): void {
  const constants = parts.flatMap((name) => findConstant(draft, name) ?? []);
  const bytes = constants.reduce((sum, { dataType, shape }) => sum + byteLengthOf(dataType, shape), 0);
  const zeroPoints = constants[2] === undefined ? '' : ':asymmetric';
  const tensor = parts[0] as string;
  const name = layerNameOf(node, tensor);
  draft.stored.push({
    name,
    tensor,
    kind: node.opType.startsWith('Gather') ? 'embedding' : kindOfNames([name]),
    node: node.name,
    shape,
    storedType: constants[0]?.dataType ?? 'uint8',
    scheme: `wint${numberOf(node, 'bits', 4)}:g${numberOf(node, 'block_size', 0)}${zeroPoints}`,
    reason: `stored in the ONNX model as ${node.opType}`,
    bytesBefore: bytes,
    bytesAfter: bytes,
  });
}
