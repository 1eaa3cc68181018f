import { z } from 'zod';
import { UserError } from '../../errors.js';
import { describeEnvironment } from '../environment.js';
import { toPlainError } from './protocol.js';
import { startModelProcess, type MeasuredRound, type ModelProcess } from './model-process.js';
import type { SpeedCase, SpeedOptions } from './options.js';
import { planSpeed, type SpeedModel } from './plan.js';
import { roundMetrics, scenarioName } from './scenario.js';

const REQUEST = z.strictObject({ round: z.number().int(), scenario: z.string() });

interface Target {
  readonly model: SpeedModel;
  readonly what: SpeedCase;
}

export interface RoundsOptions {
  /** Lines without their ends. */
  readonly lines: AsyncIterable<string>;
  /** One JSON object, a line. */
  readonly write: (message: object) => void;
  readonly signal: AbortSignal;
  /** Replaced in tests. */
  readonly start?: typeof startModelProcess;
}

/**
 * Measures one repetition for each line until there are no more. A model is loaded when it is first asked for, and
 * kept until another one is.
 * @throws what planning and loading throw; UserError `usage` for a line that cannot be understood. Either was
 *   answered with an error line
 */
export async function answerRounds(
  options: SpeedOptions,
  { lines, write, signal, start = startModelProcess }: RoundsOptions,
): Promise<void> {
  const loaded = new LoadedModel(start, signal);
  try {
    const plan = await planSpeed(options);
    const targets = new Map<string, Target>();
    for (const model of plan.models) {
      for (const what of plan.cases) targets.set(scenarioName(model, what), { model, what });
    }
    const { isa, onnxruntime } = plan;
    const environment = await describeEnvironment({ isa, onnxruntime });
    write({ ready: true, scenarios: [...targets.keys()], environment });
    for await (const line of lines) {
      if (line.trim() !== '') write(await answerLine(line, targets, loaded));
    }
  } catch (error) {
    write({ error: toPlainError(error) });
    throw error;
  } finally {
    await loaded.close();
  }
}

async function answerLine(
  line: string,
  targets: ReadonlyMap<string, Target>,
  loaded: LoadedModel,
): Promise<object> {
  const { round, scenario } = parseRequest(line);
  const target = targets.get(scenario);
  if (target === undefined) {
    throw refuse(`${JSON.stringify(scenario)} is no scenario of this run`, [
      `It has: ${[...targets.keys()].join('; ')}.`,
    ]);
  }
  const { model, what } = target;
  const { sample, peakRssBytes } = await loaded.measure(model, what);
  const metrics = {
    ...roundMetrics(sample),
    peak_rss: peakRssBytes,
    weight_bytes: model.weightBytes,
    kv_bytes_per_token: model.kvBytesPerToken,
  };
  return { round, scenario, metrics };
}

/** At most one model at a time. */
class LoadedModel {
  #model: SpeedModel | undefined;
  #process: ModelProcess | undefined;
  readonly #warm = new Set<SpeedCase>();

  constructor(
    private readonly start: typeof startModelProcess,
    private readonly signal: AbortSignal,
  ) {}

  async measure(model: SpeedModel, what: SpeedCase): Promise<MeasuredRound> {
    const process = await this.#switchTo(model);
    if (!this.#warm.has(what)) await process.measure(what);
    this.#warm.add(what);
    return process.measure(what);
  }

  async close(): Promise<void> {
    await this.#process?.close();
    this.#process = undefined;
    this.#warm.clear();
  }

  async #switchTo(model: SpeedModel): Promise<ModelProcess> {
    if (this.#process !== undefined && this.#model === model) return this.#process;
    await this.close();
    this.#model = model;
    this.#process = await this.start({ load: model.load, signal: this.signal });
    return this.#process;
  }
}

function parseRequest(line: string): z.infer<typeof REQUEST> {
  try {
    return REQUEST.parse(JSON.parse(line));
  } catch {
    throw refuse(`Expected a line like {"round": 1, "scenario": "..."} but received ${line.slice(0, 200)}`, [
      'See docs/bench.md for what --rounds-from-stdin reads.',
    ]);
  }
}

function refuse(message: string, suggestions: readonly string[]): UserError {
  return new UserError('usage', `${message}.`, { param: 'rounds-from-stdin', suggestions });
}
