import { copyFileSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { Attribute, DataType, Graph, GraphNode, Initializer, ValueInfo } from '../../src/graph/ir.js';
import { serializeModel } from '../../src/graph/onnx.js';
import { openCheckpoint } from '../../src/hub/checkpoint.js';
import { locateModel } from '../../src/hub/locate.js';
import type { ModelConfig } from '../../src/models/architecture.js';
import { inverseFrequencies } from '../../src/models/blocks/rope.js';
import { loadArchitecture } from '../../src/models/registry.js';
import { fixtureFolder } from './fixture-model.js';

const MICROSOFT = 'com.microsoft';

/** How onnxruntime-genai's model builder may write the same model. */
export interface GenaiVariant {
  /** q, k and v are one MatMul, and one input of the attention. */
  readonly packed?: boolean;
  /** Rotation by nodes before the attention, which then takes position_ids. */
  readonly rotaryBefore?: boolean;
  /** More keys of genai_config.json's `model.decoder`. */
  readonly decoder?: Readonly<Record<string, unknown>>;
}

/** Writes a float32 model as the builder names and wires it, from a checkpoint fixture. */
export async function writeGenaiModel(name: string, dir: string, variant: GenaiVariant = {}): Promise<void> {
  const folder = fixtureFolder(name);
  const checkpoint = await openCheckpoint(await locateModel(folder, {}));
  const config = (await loadArchitecture(checkpoint.config)).parseConfig(checkpoint.config);
  const tensor = (tensorName: string): Float32Array | undefined => {
    const info = checkpoint.tensors.get(tensorName);
    if (info === undefined) return undefined;
    const bytes = readFileSync(info.file).subarray(info.offset, info.offset + info.byteLength);
    if (info.dtype !== 'BF16') throw new Error(`${tensorName} is ${info.dtype}`);
    const words = new Uint16Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));
    return new Float32Array(Uint32Array.from(words, (word) => word << 16).buffer);
  };
  const graph = new GenaiGraph(config, tensor, variant).build();
  writeFileSync(path.join(dir, 'model.onnx'), serializeModel(withExternalData(graph, dir), { dir }));
  writeFileSync(path.join(dir, 'genai_config.json'), JSON.stringify(describe(config, variant)));
  for (const file of readdirSync(folder).filter((entry) => /^(?:tokenizer|chat_template)/.test(entry))) {
    copyFileSync(path.join(folder, file), path.join(dir, file));
  }
}

/** The small constants of the builder's graphs are inline; matrices and vectors of floats lie in a file. */
function withExternalData(graph: Graph, dir: string): Graph {
  const file = path.join(dir, 'model.onnx.data');
  const chunks: Uint8Array[] = [];
  let offset = 0;
  const initializers = new Map<string, Initializer>();
  for (const [name, initializer] of graph.initializers) {
    const { data, dataType } = initializer;
    if (data.kind !== 'inline' || dataType === 'int64') {
      initializers.set(name, initializer);
      continue;
    }
    const byteLength = data.bytes.byteLength;
    initializers.set(name, { ...initializer, data: { kind: 'external', file, offset, byteLength } });
    chunks.push(data.bytes);
    offset += byteLength;
  }
  writeFileSync(file, Buffer.concat(chunks));
  return { ...graph, initializers };
}

function describe(config: ModelConfig, { decoder, rotaryBefore }: GenaiVariant): unknown {
  return {
    model: {
      context_length: config.maxPositions,
      decoder: {
        filename: 'model.onnx',
        head_size: config.headDim,
        hidden_size: config.hiddenSize,
        inputs: {
          input_ids: 'input_ids',
          attention_mask: 'attention_mask',
          ...(rotaryBefore === true ? { position_ids: 'position_ids' } : {}),
          past_key_names: 'past_key_values.%d.key',
          past_value_names: 'past_key_values.%d.value',
        },
        outputs: {
          logits: 'logits',
          present_key_names: 'present.%d.key',
          present_value_names: 'present.%d.value',
        },
        num_attention_heads: config.numHeads,
        num_hidden_layers: config.numLayers,
        num_key_value_heads: config.numKvHeads,
        ...decoder,
      },
      eos_token_id: [2, 7],
      type: 'llama',
      vocab_size: config.vocabSize,
    },
    search: {
      do_sample: true,
      temperature: 0.6,
      top_k: 20,
      top_p: 0.95,
      max_length: 512,
      repetition_penalty: 1.1,
    },
  };
}

/** Nodes are added front to back; a node's output is named after it. */
class GenaiGraph {
  readonly #config: ModelConfig;
  readonly #tensor: (name: string) => Float32Array | undefined;
  readonly #variant: GenaiVariant;
  readonly #nodes: GraphNode[] = [];
  readonly #initializers = new Map<string, Initializer>();
  readonly #values = new Map<string, ValueInfo>();

  constructor(
    config: ModelConfig,
    tensor: (name: string) => Float32Array | undefined,
    variant: GenaiVariant,
  ) {
    this.#config = config;
    this.#tensor = tensor;
    this.#variant = variant;
  }

  build(): Graph {
    const { numLayers, numKvHeads, headDim, vocabSize, tiedEmbeddings } = this.#config;
    this.#addLengths();
    this.#addCaches();
    let x = this.#node('/model/embed_tokens/Gather', 'Gather', [this.#embedding(), 'input_ids']);
    let residual = '';
    for (let layer = 0; layer < numLayers; layer++) {
      const from = `model.layers.${layer}`;
      const to = `/model/layers.${layer}`;
      [x, residual] = this.#norm(`${to}/input_layernorm`, `${from}.input_layernorm`, x, residual);
      x = this.#attention(layer, x);
      [x, residual] = this.#norm(
        `${to}/post_attention_layernorm`,
        `${from}.post_attention_layernorm`,
        x,
        residual,
      );
      x = this.#mlp(layer, x);
    }
    [x] = this.#norm(`/model/layers.${numLayers}/final_norm_layernorm`, 'model.norm', x, residual);
    const head = this.#matrix('lm_head.MatMul.weight', [tiedEmbeddings ? 'model.embed_tokens' : 'lm_head']);
    this.#node('/lm_head/MatMul', 'MatMul', [x, head], { output: 'logits' });
    const batch = ['batch_size', 'sequence_length'];
    const cache = { dataType: 'float32' as DataType, shape: ['batch_size', numKvHeads, 'past', headDim] };
    const pairs = Array.from({ length: numLayers }, (_, i) => [`${i}.key`, `${i}.value`]).flat();
    const ids = (name: string): ValueInfo => ({ name, dataType: 'int64', shape: batch });
    return {
      name: 'main_graph',
      opsets: new Map([
        ['', 21],
        [MICROSOFT, 1],
      ]),
      inputs: [
        ids('input_ids'),
        ids('attention_mask'),
        ...(this.#variant.rotaryBefore === true ? [ids('position_ids')] : []),
        ...pairs.map((pair) => ({ ...cache, name: `past_key_values.${pair}` })),
      ],
      outputs: [
        { name: 'logits', dataType: 'float32', shape: [...batch, vocabSize] },
        ...pairs.map((pair) => ({ ...cache, name: `present.${pair}` })),
      ],
      nodes: this.#nodes,
      initializers: this.#initializers,
      values: this.#values,
      metadata: new Map(),
    };
  }

  #addLengths(): void {
    const base = '/model/attn_mask_reformat/attn_mask_subgraph';
    const one = this.#integers('one', [1]);
    const sum = this.#node(`${base}/ReduceSum`, 'ReduceSum', ['attention_mask', one], {
      attributes: { keepdims: int(0) },
    });
    const less = this.#node(`${base}/Sub`, 'Sub', [sum, one]);
    this.#node(`${base}/Sub/Cast`, 'Cast', [less], { output: 'seqlens_k', attributes: { to: int(6) } });
    const shape = this.#node(`${base}/Shape`, 'Shape', ['attention_mask']);
    const total = this.#node(`${base}/Gather`, 'Gather', [shape, one], { attributes: { axis: int(0) } });
    this.#node(`${base}/Gather/Cast`, 'Cast', [total], {
      output: 'total_seq_len',
      attributes: { to: int(6) },
    });
  }

  #addCaches(): void {
    const { rope, maxPositions } = this.#config;
    const frequencies = inverseFrequencies(rope);
    const rows = Math.min(maxPositions, 1024);
    for (const [name, of] of [['cos_cache', Math.cos] as const, ['sin_cache', Math.sin] as const]) {
      const values = Float32Array.from({ length: rows * frequencies.length }, (_, i) => {
        const position = Math.floor(i / frequencies.length);
        return of(Math.fround(position * (frequencies[i % frequencies.length] as number)));
      });
      this.#constant(name, 'float32', [rows, frequencies.length], values);
    }
  }

  #embedding(): string {
    const { vocabSize, hiddenSize } = this.#config;
    return this.#constant(
      'model.embed_tokens.weight',
      'float32',
      [vocabSize, hiddenSize],
      this.#read('model.embed_tokens.weight'),
    );
  }

  #norm(name: string, from: string, x: string, residual: string): [string, string] {
    const weight = this.#vector(`${name.slice(1).replaceAll('/', '.')}.weight`, `${from}.weight`);
    const epsilon: Attribute = { type: 'float', value: Math.fround(this.#config.normEpsilon) };
    if (residual === '') {
      const attributes = { epsilon, axis: int(-1), stash_type: int(1) };
      return [
        this.#node(`${name}/LayerNorm`, 'SimplifiedLayerNormalization', [x, weight], { attributes }),
        x,
      ];
    }
    const output = `${name}/output_0`;
    const sum = `${name}/output_3`;
    this.#nodes.push({
      name: `${name}/SkipLayerNorm`,
      opType: 'SkipSimplifiedLayerNormalization',
      domain: MICROSOFT,
      inputs: [residual, x, weight],
      outputs: [output, '', '', sum],
      attributes: { epsilon },
    });
    return [output, sum];
  }

  #attention(layer: number, x: string): string {
    const { numHeads, numKvHeads, headDim, windows } = this.#config;
    const from = `model.layers.${layer}.self_attn`;
    const to = `/model/layers.${layer}/attn`;
    const [query = '', key = '', value = ''] = this.#qkv(from, to, x);
    const before = this.#variant.rotaryBefore === true;
    this.#nodes.push({
      name: `${to}/GroupQueryAttention`,
      opType: 'GroupQueryAttention',
      domain: MICROSOFT,
      inputs: [
        ...[query, key, value],
        ...[`past_key_values.${layer}.key`, `past_key_values.${layer}.value`, 'seqlens_k', 'total_seq_len'],
        ...(before ? [] : ['cos_cache', 'sin_cache']),
      ],
      outputs: [`${to}/output_0`, `present.${layer}.key`, `present.${layer}.value`],
      attributes: {
        num_heads: int(numHeads),
        kv_num_heads: int(numKvHeads),
        scale: { type: 'float', value: Math.fround(headDim ** -0.5) },
        local_window_size: int((windows[layer] ?? 0) === 0 ? -1 : (windows[layer] as number)),
        softcap: { type: 'float', value: 0 },
        do_rotary: int(before ? 0 : 1),
        rotary_interleaved: int(0),
      },
    });
    return this.#linear(`${to}/o_proj`, [`${from}.o_proj`], `${to}/output_0`);
  }

  #qkv(from: string, to: string, x: string): readonly string[] {
    const parts = ['q', 'k', 'v'] as const;
    if (this.#variant.packed === true) {
      return [
        this.#linear(
          `${to}/qkv_proj`,
          parts.map((part) => `${from}.${part}_proj`),
          x,
        ),
        '',
        '',
      ];
    }
    return parts.map((part) => {
      const projected = this.#linear(`${to}/${part}_proj`, [`${from}.${part}_proj`], x);
      if (part === 'v') return projected;
      const normed = this.#headNorm(`${to}/${part}_norm`, `${from}.${part}_norm`, projected);
      if (this.#variant.rotaryBefore !== true) return normed;
      const inputs = [normed, 'position_ids', 'cos_cache', 'sin_cache'];
      const options = { domain: MICROSOFT, attributes: { interleaved: int(0) } };
      return this.#node(`${to}/${part}_rotary/RotaryEmbedding`, 'RotaryEmbedding', inputs, options);
    });
  }

  #headNorm(to: string, from: string, x: string): string {
    if (this.#tensor(`${from}.weight`) === undefined) return x;
    const { headDim, normEpsilon, numHeads, numKvHeads } = this.#config;
    const heads = to.endsWith('q_norm') ? numHeads : numKvHeads;
    const weight = this.#vector(`${to.slice(1).replaceAll('/', '.')}.layernorm.weight`, `${from}.weight`);
    const rows = this.#node(`${to}/Reshape_1`, 'Reshape', [x, this.#integers('cut', [0, -1, headDim])]);
    const epsilon: Attribute = { type: 'float', value: Math.fround(normEpsilon) };
    const attributes = { epsilon, axis: int(-1), stash_type: int(1) };
    const normed = this.#node(`${to}/LayerNorm`, 'SimplifiedLayerNormalization', [rows, weight], {
      attributes,
    });
    return this.#node(`${to}/Reshape_2`, 'Reshape', [
      normed,
      this.#integers(`join_${heads}`, [0, -1, heads * headDim]),
    ]);
  }

  #mlp(layer: number, x: string): string {
    const from = `model.layers.${layer}.mlp`;
    const to = `/model/layers.${layer}/mlp`;
    const gate = this.#linear(`${to}/gate_proj`, [`${from}.gate_proj`], x);
    const up = this.#linear(`${to}/up_proj`, [`${from}.up_proj`], x);
    const sigmoid = this.#node(`${to}/act_fn/Sigmoid`, 'Sigmoid', [gate]);
    const silu = this.#node(`${to}/act_fn/Mul`, 'Mul', [gate, sigmoid]);
    const product = this.#node(`${to}/Mul`, 'Mul', [silu, up]);
    return this.#linear(`${to}/down_proj`, [`${from}.down_proj`], product);
  }

  /** MatMul with the weights of some modules side by side as [k, n], and Add where they have biases. */
  #linear(to: string, from: readonly string[], x: string): string {
    const dotted = to.slice(1).replaceAll('/', '.');
    const product = this.#node(`${to}/MatMul`, 'MatMul', [x, this.#matrix(`${dotted}.MatMul.weight`, from)]);
    const biases = from.flatMap((module) => this.#tensor(`${module}.bias`) ?? []);
    if (biases.length === 0) return product;
    const bias = Float32Array.from(biases.flatMap((part) => [...part]));
    const name = this.#constant(`${dotted}.Add.bias`, 'float32', [bias.length], bias);
    return this.#node(`${to}/Add`, 'Add', [product, name]);
  }

  /** Modules [n_i, k] → one constant [k, n]. */
  #matrix(name: string, from: readonly string[]): string {
    const parts = from.map((module) => this.#read(`${module}.weight`));
    const k = from.some((module) => module.endsWith('down_proj'))
      ? this.#config.intermediateSize
      : from.some((module) => module.endsWith('o_proj'))
        ? this.#config.numHeads * this.#config.headDim
        : this.#config.hiddenSize;
    const n = parts.reduce((sum, part) => sum + part.length / k, 0);
    const values = new Float32Array(k * n);
    let first = 0;
    for (const part of parts) {
      for (let i = 0; i < part.length; i++)
        values[(i % k) * n + first + Math.floor(i / k)] = part[i] as number;
      first += part.length / k;
    }
    return this.#constant(name, 'float32', [k, n], values);
  }

  #vector(name: string, from: string): string {
    const values = this.#read(from);
    return this.#constant(name, 'float32', [values.length], values);
  }

  #read(name: string): Float32Array {
    const values = this.#tensor(name);
    if (values === undefined) throw new Error(`the fixture has no ${name}`);
    return values;
  }

  #integers(name: string, values: readonly number[]): string {
    return this.#constant(
      `/model/constants/INT64/${name}`,
      'int64',
      [values.length],
      BigInt64Array.from(values, BigInt),
    );
  }

  #constant(name: string, dataType: DataType, shape: readonly number[], values: ArrayBufferView): string {
    const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
    this.#initializers.set(name, { name, dataType, shape, data: { kind: 'inline', bytes } });
    return name;
  }

  #node(
    name: string,
    opType: string,
    inputs: readonly string[],
    options: {
      readonly output?: string;
      readonly domain?: string;
      readonly attributes?: GraphNode['attributes'];
    } = {},
  ): string {
    const { output = `${name}/output_0`, domain = '', attributes = {} } = options;
    this.#nodes.push({ name, opType, domain, inputs, outputs: [output], attributes });
    return output;
  }
}

function int(value: number): Attribute {
  return { type: 'int', value };
}
