import { intAttribute } from '../../graph/builder.js';
import { elementTypeOf } from '../../graph/data-types.js';
import type { ModelConfig, TensorSpec } from '../architecture.js';
import { scopeOf, type BlockContext } from './context.js';
import { addGemm } from './linear.js';

const EMBEDDING = 'model.embed_tokens';
const HEAD = 'lm_head';

export function embeddingTensor({ vocabSize, hiddenSize }: ModelConfig): TensorSpec {
  return { name: `${EMBEDDING}.weight`, shape: [vocabSize, hiddenSize], role: 'embedding' };
}

/** None for a tied model: its head is the embedding. */
export function headTensors({ vocabSize, hiddenSize, tiedEmbeddings }: ModelConfig): readonly TensorSpec[] {
  return tiedEmbeddings ? [] : [{ name: `${HEAD}.weight`, shape: [vocabSize, hiddenSize], role: 'lm_head' }];
}

/** Rows of the embedding as stored, widened to the float32 residual stream, [tokens, hidden]. */
export function addEmbedding(context: BlockContext, inputIds: string): string {
  const { graph, config } = context;
  const name = `${EMBEDDING}.weight`;
  const source = context.weights.tensor(name);
  const scope = scopeOf(graph, EMBEDDING);
  const shape = ['tokens', config.hiddenSize];
  const rows = scope.value({
    opType: 'Gather',
    inputs: [graph.weight(name, [source]), inputIds],
    output: { dataType: source.dataType, shape },
    attributes: { axis: intAttribute(0) },
  });
  if (source.dataType === 'float32') return rows;
  return scope.value({
    opType: 'Cast',
    inputs: [rows],
    output: { dataType: 'float32', shape },
    attributes: { to: intAttribute(elementTypeOf('float32')) },
  });
}

/** Logits of each row of x, [rows, vocab]. A tied model reads the embedding's own initializer. */
export function addHead(context: BlockContext, x: string): string {
  const name = `${HEAD}.weight`;
  const weight = context.config.tiedEmbeddings
    ? `${EMBEDDING}.weight`
    : context.graph.weight(name, [context.weights.tensor(name)]);
  return addGemm(context, { module: HEAD, x, weight, output: 'logits' });
}

/** The rows of [tokens, n] whose logits are wanted, [rows, n]. */
export function addRowSelection({ graph }: BlockContext, x: string, logitIndices: string): string {
  const { shape } = graph.valueInfo(x);
  return graph.scope('model/logit_rows').value({
    opType: 'Gather',
    inputs: [x, logitIndices],
    output: { dataType: 'float32', shape: ['rows', ...shape.slice(1)] },
    attributes: { axis: intAttribute(0) },
  });
}
