import { copyFile, open, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { describe, expect, it } from 'vitest';
import { ROOT, runCli, type CliResult } from '../helpers/cli.js';
import { createTempDir } from '../helpers/temp-dir.js';
import { buildRawSafetensors } from '../helpers/write-safetensors.js';

const DEMO = path.join(ROOT, 'models', 'demo');
const COPIED = [
  'config.json',
  'generation_config.json',
  'tokenizer.json',
  'tokenizer_config.json',
  'model.safetensors',
];
const WEIGHTS = 'model.safetensors';
const INDEX = 'model.safetensors.index.json';
const UP = 'model.layers.0.mlp.up_proj.weight';

interface Tensor {
  dtype: string;
  shape: number[];
  data_offsets: [number, number];
}
type Header = Record<string, Tensor | undefined>;

/** A copy of the demo model to spoil. */
class Folder {
  constructor(readonly dir: string) {}

  at(name: string): string {
    return path.join(this.dir, name);
  }

  async config(changes: Readonly<Record<string, unknown>>): Promise<void> {
    const config = JSON.parse(await readFile(this.at('config.json'), 'utf8')) as object;
    await writeFile(this.at('config.json'), JSON.stringify({ ...config, ...changes }));
  }

  async weights(change: (header: Header, data: Buffer) => void): Promise<void> {
    const bytes = await readFile(this.at(WEIGHTS));
    const end = 8 + Number(bytes.readBigUInt64LE());
    const header = JSON.parse(bytes.toString('utf8', 8, end)) as Header;
    const data = bytes.subarray(end);
    change(header, data);
    await writeFile(this.at(WEIGHTS), buildRawSafetensors({ header: JSON.stringify(header), data }));
  }
}

function tensor(header: Header, name: string): Tensor {
  const found = header[name];
  if (found === undefined) throw new Error(`no tensor ${name}`);
  return found;
}

/** A sparse file whose headers claim a terabyte, more than test machines have, without taking that of the disk. */
async function claimHugeModel(folder: Folder): Promise<void> {
  const [layers, hidden, intermediate, vocabulary, kv] = [160, 16_384, 57_344, 128_256, 1024] as const;
  await folder.config({
    architectures: ['LlamaForCausalLM'],
    num_hidden_layers: layers,
    hidden_size: hidden,
    intermediate_size: intermediate,
    num_attention_heads: 128,
    num_key_value_heads: 8,
    head_dim: 128,
    vocab_size: vocabulary,
  });
  const header: Header = {};
  let position = 0;
  const add = (name: string, ...shape: number[]): void => {
    const end = position + shape.reduce((product, size) => product * size, 2);
    header[name] = { dtype: 'BF16', shape, data_offsets: [position, end] };
    position = end;
  };
  add('model.embed_tokens.weight', vocabulary, hidden);
  add('model.norm.weight', hidden);
  for (let layer = 0; layer < layers; layer++) {
    const at = `model.layers.${layer}`;
    for (const name of ['q_proj', 'o_proj']) add(`${at}.self_attn.${name}.weight`, hidden, hidden);
    for (const name of ['k_proj', 'v_proj']) add(`${at}.self_attn.${name}.weight`, kv, hidden);
    for (const name of ['gate_proj', 'up_proj']) add(`${at}.mlp.${name}.weight`, intermediate, hidden);
    add(`${at}.mlp.down_proj.weight`, hidden, intermediate);
    for (const name of ['input', 'post_attention']) add(`${at}.${name}_layernorm.weight`, hidden);
  }
  const bytes = buildRawSafetensors({ header: JSON.stringify(header) });
  await writeFile(folder.at(WEIGHTS), bytes);
  const file = await open(folder.at(WEIGHTS), 'r+');
  await file.truncate(bytes.length + position);
  await file.close();
}

interface Case {
  readonly what: string;
  readonly spoil?: (folder: Folder) => Promise<void>;
  readonly args?: readonly string[];
  readonly code: number;
  readonly name: string;
  /** Parts of the message and the advice. */
  readonly says: readonly string[];
}

const CHECKPOINTS: readonly Case[] = [
  {
    what: 'a missing shard',
    spoil: async (folder) => {
      const weight_map = { [UP]: 'model-1.safetensors', 'model.norm.weight': 'model-2.safetensors' };
      await copyFile(folder.at(WEIGHTS), folder.at('model-1.safetensors'));
      await rm(folder.at(WEIGHTS));
      await writeFile(folder.at(INDEX), JSON.stringify({ weight_map }));
    },
    code: 3,
    name: 'invalid_checkpoint',
    says: ['lacks 1 of the 2 weight files', 'model-2.safetensors'],
  },
  {
    what: 'a truncated file',
    spoil: (folder) => truncate(folder.at(WEIGHTS), 20_000),
    code: 3,
    name: 'invalid_checkpoint',
    says: [WEIGHTS, 'truncated'],
  },
  {
    what: 'a lying header',
    spoil: (folder) => folder.weights((header) => (tensor(header, UP).shape = [768, 512])),
    code: 3,
    name: 'invalid_checkpoint',
    says: [UP, 'takes 393216 bytes', 'needs 786432'],
  },
  {
    what: 'a wrong dtype',
    spoil: (folder) =>
      folder.weights((header) => Object.assign(tensor(header, UP), { dtype: 'I8', shape: [768, 512] })),
    code: 3,
    name: 'invalid_checkpoint',
    says: [UP, 'BF16, F16, F32', 'I8'],
  },
  {
    what: 'an unknown architecture',
    spoil: (folder) => folder.config({ architectures: ['GPT2LMHeadModel'] }),
    code: 3,
    name: 'unsupported_architecture',
    says: ['GPT2LMHeadModel', 'LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM'],
  },
  {
    what: 'a key that changes the mathematics',
    spoil: (folder) => folder.config({ attn_logit_softcapping: 30 }),
    code: 3,
    name: 'unsupported_model',
    says: ['attn_logit_softcapping', '30'],
  },
  {
    what: 'a missing tensor',
    spoil: (folder) =>
      folder.weights((header) => {
        header['other'] = header[UP];
        header[UP] = undefined; // JSON leaves it out
      }),
    code: 3,
    name: 'invalid_checkpoint',
    says: [UP, 'does not have it'],
  },
  {
    what: 'a wrong shape',
    spoil: (folder) => folder.config({ intermediate_size: 999 }),
    code: 3,
    name: 'invalid_checkpoint',
    says: ['[999, 256]', '[768, 256]'],
  },
  {
    what: 'no tokenizer',
    spoil: (folder) => rm(folder.at('tokenizer.json')),
    code: 3,
    name: 'invalid_tokenizer',
    says: ['no tokenizer.json'],
  },
  {
    what: 'a broken tokenizer',
    spoil: (folder) => truncate(folder.at('tokenizer.json'), 200),
    code: 3,
    name: 'invalid_tokenizer',
    says: ['tokenizer.json is not JSON'],
  },
  {
    what: 'no config.json',
    spoil: (folder) => rm(folder.at('config.json')),
    code: 3,
    name: 'invalid_checkpoint',
    says: ['config.json', 'missing'],
  },
  {
    what: 'pickled weights',
    spoil: async (folder) => {
      await rm(folder.at(WEIGHTS));
      await writeFile(folder.at('pytorch_model.bin'), '');
    },
    code: 3,
    name: 'unsupported_model',
    says: ['pytorch_model.bin', 'safetensors'],
  },
  {
    what: 'a NaN',
    spoil: (folder) =>
      folder.weights((header, data) => {
        const { shape, data_offsets } = tensor(header, UP);
        data.writeUInt16LE(0x7fc0, data_offsets[0] + 2 * (3 * (shape[1] ?? 0) + 5));
      }),
    args: ['-q', 'wint8'],
    code: 3,
    name: 'non_finite_weight',
    says: [UP, 'row 3, column 5'],
  },
  {
    what: 'quantized weights',
    spoil: (folder) => folder.config({ quantization_config: { quant_method: 'bitsandbytes' } }),
    code: 3,
    name: 'unsupported_model',
    says: ['bitsandbytes', 'already quantized'],
  },
  {
    what: 'more weights than memory',
    spoil: claimHugeModel,
    code: 1,
    name: 'out_of_memory',
    says: ['the weights take 10', 'GiB of memory are available', '--quantization', '--max-model-len'],
  },
];

const FLAGS: readonly Case[] = [
  {
    what: 'a pattern that matches nothing',
    args: ['--quantization-config', '{"quantization": "wint8", "ignore": ["re:.*nothing"]}'],
    code: 2,
    name: 'pattern_matches_nothing',
    says: ['re:.*nothing', 'nearest'],
  },
  {
    what: 'more KV cache than memory',
    args: ['--kv-cache-memory', '10TiB'],
    code: 1,
    name: 'out_of_memory',
    says: ['10240.00 GiB', '--kv-cache-memory'],
  },
  {
    what: "a context beyond the model's",
    args: ['--max-model-len', '32k'],
    code: 2,
    name: 'usage',
    says: ["the model's 2048 positions", '32768'],
  },
];

/** CPU time of a refusal over that of one which loads nothing: about 3, however slow or busy the machine is. */
const MAX_TIMES = 10;
const PROBE = path.join(import.meta.dirname, '..', 'helpers', 'cpu-probe.mjs');

/** Runs `fdq serve`, and measures its CPU time in seconds. */
async function serve(
  args: readonly string[],
  cwd: string,
): Promise<CliResult & { readonly seconds: number }> {
  const file = path.join(await createTempDir(), 'seconds');
  const env = { NODE_OPTIONS: `--import ${pathToFileURL(PROBE).href}`, CPU_PROBE_FILE: file };
  const result = await runCli(['serve', ...args], { cwd, env });
  return { ...result, seconds: Number(await readFile(file, 'utf8')) };
}

async function check({ args = [], code, name, says }: Case, dir: string, isJson: boolean): Promise<void> {
  const before = await readdir(dir);
  const json = isJson ? ['--json'] : [];
  const result = await serve([dir, '--port', '0', ...args, ...json], dir);
  const { seconds: least } = await serve([dir, '--port', 'none'], dir);
  expect(result.seconds / least, `${result.seconds} s, ${least} s`).toBeLessThan(MAX_TIMES);
  const text = isJson ? result.stdout : result.stderr;
  for (const part of says) expect(isJson ? text.replaceAll('\\"', '"') : text).toContain(part);
  expect(`${result.stdout}${result.stderr}`).not.toMatch(/^\s+at |node:internal|file:\/\//m);
  if (isJson) {
    const { status, error } = JSON.parse(text) as { status: number; error: { code: string } };
    expect({ status, code: error.code }).toEqual({ status: code, code: name });
  } else {
    expect(text).toContain(`Code: ${name}\n`);
    expect(text.match(/^Error: /gm)).toHaveLength(1);
    expect(result.stdout).toBe('');
  }
  expect(result.code).toBe(code);
  expect(await readdir(dir)).toEqual(before);
}

async function spoiledCopy({ spoil }: Case): Promise<string> {
  const folder = new Folder(await createTempDir());
  await Promise.all(COPIED.map((name) => copyFile(path.join(DEMO, name), folder.at(name))));
  await spoil?.(folder);
  return folder.dir;
}

describe('fdq serve refuses', () => {
  // Every other one prints JSON: message and exit code are made in one place for both forms.
  it.each(CHECKPOINTS.map((entry, index) => ({ ...entry, isJson: index % 2 === 1 })))(
    '$what (JSON: $isJson)',
    async (entry) => check(entry, await spoiledCopy(entry), entry.isJson),
  );

  it.each(FLAGS)('$what', (entry) => check(entry, DEMO, false));
});
