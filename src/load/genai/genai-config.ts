import { decoderFileOf, findLayout, readGenaiJson } from '../../hub/layout.js';
import { createFolderSource } from '../../hub/model-source.js';
import { describeJson, isJsonObject } from '../../hub/strict-json.js';
import { listFolder } from '../../hub/weight-files.js';
import { refuseConfig, refuseModel } from './problems.js';

/** Far above any model; keeps products of sizes exact. */
const MAX_SIZE = 2 ** 31 - 1;
const SAMPLING_KEYS = ['temperature', 'top_k', 'top_p', 'min_p'] as const;

type Json = Readonly<Record<string, unknown>>;

/** What onnxruntime-genai's configuration says about a decoder; its src/config.h lists the keys. */
export interface GenaiConfig {
  /** `model.type`, e.g. `llama`. */
  readonly type: string;
  /** Plain name of the ONNX file in the same folder. */
  readonly filename: string;
  readonly vocabSize: number;
  readonly contextLength: number;
  readonly hiddenSize: number;
  readonly numLayers: number;
  readonly numHeads: number;
  readonly numKvHeads: number;
  readonly headDim: number;
  /** Names of the graph's inputs and of its output. */
  readonly inputIds: string;
  readonly attentionMask: string;
  readonly positionIds: string;
  readonly logits: string;
  /** `decoder.sliding_window.window_size`, which the graph may or may not apply. */
  readonly slidingWindow: number | undefined;
  readonly eosTokenIds: readonly number[];
  /** Sampling defaults under the names of generation_config.json. */
  readonly generation: Json;
}

/** Whether a folder holds a model of onnxruntime-genai and no safetensors, which would be served instead. */
export async function isGenaiFolder(dir: string): Promise<boolean> {
  return findLayout(await listFolder(dir)) === 'genai';
}

/** @throws UserError `invalid_checkpoint` naming the key, UnsupportedError for models that are not one decoder */
export async function readGenaiConfig(dir: string): Promise<GenaiConfig> {
  return parseGenaiConfig(await readGenaiJson(createFolderSource(dir, await listFolder(dir))));
}

/** @throws as `readGenaiConfig` */
export function parseGenaiConfig(json: Json): GenaiConfig {
  const model = objectAt(json, 'model', '');
  for (const part of ['encoder', 'vision', 'speech', 'embedding']) {
    if (model[part] !== undefined) throw refuseModel(`genai_config.json gives it a part "${part}"`);
  }
  const decoder = objectAt(model, 'decoder', 'model.');
  if (decoder['pipeline'] !== undefined) throw refuseModel('genai_config.json cuts it into a pipeline');
  const path = 'model.decoder.';
  const inputs = isJsonObject(decoder['inputs']) ? decoder['inputs'] : {};
  const outputs = isJsonObject(decoder['outputs']) ? decoder['outputs'] : {};
  const numHeads = sizeAt(decoder, 'num_attention_heads', path);
  return {
    type: textAt(model, 'type', 'decoder'),
    filename: decoderFileOf(json),
    vocabSize: sizeAt(model, 'vocab_size', 'model.'),
    contextLength: sizeAt(model, 'context_length', 'model.'),
    hiddenSize: sizeAt(decoder, 'hidden_size', path),
    numLayers: sizeAt(decoder, 'num_hidden_layers', path),
    numHeads,
    numKvHeads: sizeAt({ num_key_value_heads: numHeads, ...decoder }, 'num_key_value_heads', path),
    headDim: sizeAt(decoder, 'head_size', path),
    inputIds: textAt(inputs, 'input_ids', 'input_ids'),
    attentionMask: textAt(inputs, 'attention_mask', 'attention_mask'),
    positionIds: textAt(inputs, 'position_ids', 'position_ids'),
    logits: textAt(outputs, 'logits', 'logits'),
    slidingWindow: windowOf(decoder),
    eosTokenIds: [model['eos_token_id']].flat().filter((id): id is number => Number.isSafeInteger(id)),
    generation: describeSampling(json['search']),
  };
}

/** A `search` that does not sample gives no defaults of sampling. */
function describeSampling(search: unknown): Json {
  if (!isJsonObject(search)) return {};
  const keys = search['do_sample'] === true ? SAMPLING_KEYS : [];
  const entries = [...keys, 'repetition_penalty'].map((key) => [key, search[key]] as const);
  return Object.fromEntries(entries.filter(([, value]) => value !== undefined));
}

function windowOf(decoder: Json): number | undefined {
  const sliding = decoder['sliding_window'];
  const size = isJsonObject(sliding) ? sliding['window_size'] : undefined;
  return typeof size === 'number' && size > 0 ? size : undefined;
}

function objectAt(json: Json, key: string, path: string): Json {
  const value = json[key];
  if (isJsonObject(value)) return value;
  throw refuseConfig(`${path}${key} is ${describeJson(value)}, not an object`);
}

function sizeAt(json: Json, key: string, path: string): number {
  const value = json[key];
  if (typeof value === 'number' && Number.isSafeInteger(value) && value > 0 && value <= MAX_SIZE)
    return value;
  throw refuseConfig(`${path}${key} is ${describeJson(value)}, not a positive integer`);
}

function textAt(json: Json, key: string, absent: string): string {
  const value = json[key];
  return typeof value === 'string' && value !== '' ? value : absent;
}
