import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { UserError } from '../errors.js';
import type { Checkpoint } from '../hub/checkpoint.js';

type JsonObject = Readonly<Record<string, unknown>>;

/**
 * Sampling defaults by vLLM's rule: `auto` takes the checkpoint's generation_config.json, `vllm` none, a folder its
 * own; `override` replaces single keys. eos ids stay the checkpoint's.
 * @throws UserError `invalid_config` when the folder has no readable generation_config.json.
 */
export async function readGenerationConfig(
  checkpoint: Pick<Checkpoint, 'generationConfig'>,
  options: { readonly generationConfig: string; readonly overrideGenerationConfig: JsonObject },
): Promise<JsonObject> {
  const own = checkpoint.generationConfig ?? {};
  const eos = own['eos_token_id'] === undefined ? {} : { eos_token_id: own['eos_token_id'] };
  const base =
    options.generationConfig === 'auto'
      ? own
      : options.generationConfig === 'vllm'
        ? {}
        : await readFolder(options.generationConfig);
  return { ...eos, ...base, ...options.overrideGenerationConfig };
}

/** Ids that end a text: those of generation_config.json, config.json and the tokenizer together. */
export function collectEosIds(
  config: JsonObject,
  generation: JsonObject,
  tokenizerEos: number | null,
): readonly number[] {
  const listed = [config['eos_token_id'], generation['eos_token_id'], tokenizerEos].flat();
  return [
    ...new Set(
      listed.filter((id): id is number => typeof id === 'number' && Number.isInteger(id) && id >= 0),
    ),
  ];
}

async function readFolder(folder: string): Promise<JsonObject> {
  const file = path.join(folder, 'generation_config.json');
  try {
    const parsed: unknown = JSON.parse(await readFile(file, 'utf8'));
    if (typeof parsed === 'object' && parsed !== null && !Array.isArray(parsed)) return parsed as JsonObject;
    throw new TypeError('it is not a JSON object');
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new UserError(
      'invalid_config',
      `Expected generation defaults in ${file} but could not read them: ${reason}.`,
      {
        param: '--generation-config',
        suggestions: ['Pass auto, vllm, or a folder with a generation_config.json.'],
        cause,
      },
    );
  }
}
