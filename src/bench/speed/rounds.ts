import { z } from 'zod';
import { UserError } from '../../errors.js';
import { availableMemoryBytes } from '../../runtime/machine.js';
import { describeEnvironment } from '../environment.js';
import { toPlainError } from './protocol.js';
import { startModelProcess, type ModelProcess } from './model-process.js';
import type { SpeedCase, SpeedOptions } from './options.js';
import { checkSideBySide, planSpeed, type SpeedModel } from './plan.js';
import { roundMetrics, scenarioName } from './scenario.js';

const REQUEST = z.strictObject({ round: z.number().int(), scenario: z.string() });

/** What a scenario is measured with. */
interface Target {
  readonly model: SpeedModel;
  readonly process: ModelProcess;
  readonly what: SpeedCase;
}

export interface RoundsOptions {
  /** Lines without their ends. */
  readonly lines: AsyncIterable<string>;
  /** One JSON object, a line. */
  readonly write: (message: object) => void;
  readonly signal: AbortSignal;
}

/**
 * Loads all models, side by side, then measures one repetition for each line until there are no more.
 * @throws what planning and loading throw; UserError `usage` for a line that cannot be understood, after it was
 *   answered with an error line
 */
export async function answerRounds(
  options: SpeedOptions,
  { lines, write, signal }: RoundsOptions,
): Promise<void> {
  const plan = await planSpeed(options);
  checkSideBySide(plan.models, availableMemoryBytes() * options.utilization);
  const targets = new Map<string, Target>();
  const processes: ModelProcess[] = [];
  try {
    for (const model of plan.models) {
      const process = await startModelProcess({ load: model.load, signal });
      processes.push(process);
      for (const what of plan.cases) {
        await process.measure(what); // warm-up
        targets.set(scenarioName(model, what), { model, process, what });
      }
    }
    const { isa, onnxruntime } = plan;
    const environment = await describeEnvironment({ isa, onnxruntime });
    write({ ready: true, scenarios: [...targets.keys()], environment });
    for await (const line of lines) {
      if (line.trim() !== '') write(await answerLine(line, targets));
    }
  } catch (error) {
    write({ error: toPlainError(error) });
    throw error;
  } finally {
    await Promise.all(processes.map((process) => process.close()));
  }
}

async function answerLine(line: string, targets: ReadonlyMap<string, Target>): Promise<object> {
  const { round, scenario } = parseRequest(line);
  const target = targets.get(scenario);
  if (target === undefined) {
    throw refuse(`${JSON.stringify(scenario)} is no scenario of this run`, [
      `It has: ${[...targets.keys()].join('; ')}.`,
    ]);
  }
  const { model, process, what } = target;
  const { sample, peakRssBytes } = await process.measure(what);
  const metrics = {
    ...roundMetrics(sample),
    peak_rss: peakRssBytes,
    weight_bytes: model.weightBytes,
    kv_bytes_per_token: model.kvBytesPerToken,
  };
  return { round, scenario, metrics };
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
