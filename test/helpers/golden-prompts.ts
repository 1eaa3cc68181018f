import path from 'node:path';
import { expect } from 'vitest';
import {
  argMax,
  blockRange,
  fixtureFolder,
  maxAbsDifference,
  readFloatTensors,
  readGolden,
  runStep,
  type GoldenPrompt,
} from './fixture-model.js';

type Model = Parameters<typeof runStep>[0];

/** Blocks of the longest prompt with its continuation. */
export const PROMPT_BLOCKS = 12;

/** Float32 logits and more that the reference computed for a fixture. */
export function readReference(name: string): Promise<ReadonlyMap<string, Float32Array>> {
  return readFloatTensors(path.join(fixtureFolder(name), 'golden.safetensors'));
}

/** Logits of some positions of a prompt, one behind the other. */
export async function logitsAt(
  model: Model,
  ids: readonly number[],
  rows: readonly number[],
): Promise<Float32Array> {
  const logits = await runStep(model, [{ ids, start: 0, blocks: blockRange(0, PROMPT_BLOCKS), rows }]);
  return Float32Array.from(logits.flatMap((row) => [...row]));
}

export function lastLogits(model: Model, ids: readonly number[]): Promise<Float32Array> {
  return logitsAt(model, ids, [ids.length - 1]);
}

/** Logits of the last position of every golden prompt. */
export async function lastLogitsOfPrompts(model: Model, name: string): Promise<Float32Array> {
  const rows: number[] = [];
  for (const { ids } of readGolden(name).prompts) rows.push(...(await lastLogits(model, ids)));
  return Float32Array.from(rows);
}

/** The most likely tokens behind a prompt, one step each. */
export async function continueGreedily(
  model: Model,
  ids: readonly number[],
  steps: number,
): Promise<readonly number[]> {
  const blocks = blockRange(0, PROMPT_BLOCKS);
  const greedy: number[] = [];
  let next = argMax(await lastLogits(model, ids));
  for (let position = ids.length; greedy.length < steps; position++) {
    greedy.push(next);
    const [row] = await runStep(model, [{ ids: [next], start: position, blocks, rows: [0] }]);
    next = argMax(row ?? new Float32Array());
  }
  return greedy;
}

/** Expects the reference's logits at every position it has some for. */
export async function expectReferenceLogits(
  model: Model,
  { index, ids, logit_positions: rows }: GoldenPrompt,
  { reference, tolerance }: { reference: ReadonlyMap<string, Float32Array>; tolerance: number },
): Promise<void> {
  const expected = reference.get(`logits.${index}`) ?? new Float32Array();
  const difference = maxAbsDifference(await logitsAt(model, ids, rows), expected);
  expect(difference, `prompt ${index}`).toBeLessThanOrEqual(tolerance);
}
