import { readdirSync } from 'node:fs';
import path from 'node:path';

import { describe, expect, it } from 'vitest';

import type { Dimension, Graph, GraphNode } from '../../src/graph/ir.js';
import { serializeModel } from '../../src/graph/onnx.js';
import { openCheckpoint, type Checkpoint } from '../../src/hub/checkpoint.js';
import type { DecoderModel } from '../../src/models/architecture.js';
import { buildModel } from '../../src/models/build-model.js';
import { expandTensors } from '../../src/models/checkpoint-weights.js';
import { architectureNames, loadArchitecture } from '../../src/models/registry.js';

const MODELS = path.join(import.meta.dirname, '..', 'fixtures', 'models');
const FOLDERS = readdirSync(MODELS);

async function open(folder: string): Promise<Checkpoint> {
  return openCheckpoint({ reference: folder, dir: path.join(MODELS, folder) });
}

async function build(
  folder: string,
): Promise<{ readonly checkpoint: Checkpoint; readonly model: DecoderModel }> {
  const checkpoint = await open(folder);
  return { checkpoint, model: await buildModel(checkpoint.config, checkpoint.tensors) };
}

describe('registry', () => {
  it.each(architectureNames)('%s is an architecture that knows its name', async (name) => {
    const { hfNames } = await loadArchitecture({ architectures: [name] });
    expect(hfNames).toContain(name);
  });

  it.each(architectureNames)('%s has a fixture', async (name) => {
    const checkpoints = await Promise.all(FOLDERS.map(open));
    expect(checkpoints.map(({ config }) => (config['architectures'] as string[])[0])).toContain(name);
  });
});

describe.each(FOLDERS)('fixture %s', (folder) => {
  it('uses every tensor of the checkpoint exactly once, where it lies', async () => {
    const { checkpoint, model } = await build(folder);
    const used = [...model.graph.initializers.values()].flatMap(({ data }) =>
      data.kind === 'weight' ? data.members : [],
    );
    expect(used.map((member) => member.name).sort()).toEqual([...checkpoint.tensors.keys()].sort());
    for (const { name, file, offset, byteLength, shape } of used) {
      expect(checkpoint.tensors.get(name)).toMatchObject({ file, offset, byteLength, shape });
    }
    expect(model.unusedTensors).toEqual([]);
  });

  it('has a table whose fused groups are initializers of the graph', async () => {
    const { checkpoint, model } = await build(folder);
    const architecture = await loadArchitecture(checkpoint.config);
    const specs = expandTensors(architecture.tensors(model.config), model.config.numLayers);
    expect(specs).toHaveLength(checkpoint.tensors.size);
    const initializers = new Set(specs.map((spec) => spec.fusedInto ?? spec.name));
    expect([...initializers].filter((name) => !model.graph.initializers.has(name))).toEqual([]);
  });

  it('has shapes that fit together', async () => {
    const { model } = await build(folder);
    expect(checkShapes(model.graph)).toEqual([]);
  });

  it('has inputs and outputs the runtime knows', async () => {
    const { model } = await build(folder);
    const describeValue = ({ name, dataType, shape }: Graph['inputs'][number]) =>
      `${name} ${dataType} [${shape.join(', ')}]`;
    expect(model.graph.inputs.map(describeValue)).toEqual([
      'input_ids int64 [tokens]',
      'positions int32 [tokens]',
      'query_starts int32 [sequences_plus_1]',
      'context_lengths int32 [sequences]',
      'block_tables int32 [sequences, max_blocks]',
      'logit_indices int64 [rows]',
    ]);
    expect(model.graph.outputs.map(describeValue)).toEqual([
      `logits float32 [rows, ${model.info.vocabSize}]`,
    ]);
  });

  it('has one attention a layer, in order', async () => {
    const { model } = await build(folder);
    const layers = model.graph.nodes
      .filter((node) => node.opType === 'PagedAttention')
      .map((node) => node.attributes['layer']?.value);
    expect(layers).toEqual(Array.from({ length: model.info.numLayers }, (_, layer) => layer));
  });

  it('serializes without weight data', async () => {
    const { model } = await build(folder);
    const bytes = serializeModel(model.graph);
    expect(bytes.byteLength).toBeGreaterThan(1_000);
    expect(bytes.byteLength).toBeLessThan(64_000);
  });

  it('is the same graph every time', async () => {
    const { checkpoint, model } = await build(folder);
    const again = await buildModel(checkpoint.config, checkpoint.tensors);
    expect(again).toEqual(model);
  });
});

/** One sentence per node whose declared output shape is not what its operator computes from its inputs. */
function checkShapes(graph: Graph): readonly string[] {
  const known = [...graph.inputs, ...graph.outputs, ...graph.values.values(), ...graph.initializers.values()];
  const shapes = new Map(known.map(({ name, shape }) => [name, shape]));
  const shapeOf = (name: string | undefined): readonly Dimension[] => shapes.get(name ?? '') ?? [];
  return graph.nodes.flatMap((node) => {
    const computed = computeShape(node, node.inputs.map(shapeOf));
    const wrong = node.outputs.filter(
      (output) => output !== '' && shapeOf(output).join() !== computed.join(),
    );
    return wrong.map(
      (output) => `${output}: declared [${shapeOf(output).join()}], computed [${computed.join()}]`,
    );
  });
}

function computeShape(node: GraphNode, inputs: readonly (readonly Dimension[])[]): readonly Dimension[] {
  const [x = [], second = [], third = []] = inputs;
  const size = (name: string): number => node.attributes[name]?.value as number;
  const require = (condition: boolean): void => {
    if (!condition) throw new Error(`${node.name}: inputs do not fit: ${JSON.stringify(inputs)}`);
  };
  switch (node.opType) {
    case 'Gather':
      return [...second, ...x.slice(1)];
    case 'Cast':
      return x;
    case 'SimplifiedLayerNormalization':
      require(second.join() === x.slice(1).join());
      return x;
    case 'SkipSimplifiedLayerNormalization':
      require(x.join() === second.join() && third.join() === x.slice(1).join());
      return x;
    case 'Gemm':
      require(
        size('transB') === 1 &&
          x[1] === second[1] &&
          (inputs.length < 3 || third.join() === String(second[0])),
      );
      return [x[0] ?? '', second[0] ?? ''];
    case 'RotaryTable':
      return [...x, 2 * (second[0] as number)];
    case 'SwiGLU':
      return [x[0] ?? '', (x[1] as number) / 2];
    case 'PagedAttention': {
      const heads = size('num_heads') + 2 * size('num_kv_heads');
      require(x[1] === heads * size('head_dim') && second[1] === size('rotary_dim'));
      for (const norm of inputs.slice(5))
        require(norm.length === 0 || norm.join() === String(size('head_dim')));
      return [x[0] ?? '', size('num_heads') * size('head_dim')];
    }
    default:
      throw new Error(`${node.name}: operator ${node.opType} is not one the models emit`);
  }
}
