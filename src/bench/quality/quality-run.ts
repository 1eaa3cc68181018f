import { BugError } from '../../errors.js';
import { loadModel, type LoadedModel, type LoadObserver } from '../../load/load-model.js';
import { loadRuntime } from '../../runtime/load-addon.js';
import type { Metric } from '../report.js';
import { toMetric } from '../summarize.js';
import { measureAccuracy } from './accuracy.js';
import { measureLayers } from './layers.js';
import type { QualityObserver, QualityStage } from './options.js';
import { groupScenarios, withBlocks, type PlannedRun, type PlannedScenario } from './plan-models.js';
import type { Prepared } from './prepare.js';
import { checkRoom, openReference, ReferenceWriter, type ReferenceReader } from './reference-file.js';
import {
  keepReference,
  referenceFromFile,
  referenceFromModel,
  scoreText,
  type ReferenceSource,
  type ScoreOptions,
} from './score-text.js';
import { Tally, type TextScores } from './tally.js';

/** What was measured of one scenario. */
export interface Outcome {
  readonly metrics: readonly Metric[];
  /** Windows of the text that were scored. */
  readonly windows: number;
  /** Tokens in them that were. */
  readonly tokens: number;
}

/** A loaded scenario. */
interface Member {
  readonly scenario: PlannedScenario;
  readonly model: LoadedModel;
}

/** Loads models in groups that fit into memory, and measures each group in one pass. */
export class QualityRun {
  /** Of what was measured so far, in the order asked for. */
  readonly outcomes = new Map<PlannedScenario, Outcome>();
  readonly #prepared: Prepared;
  readonly #observer: QualityObserver;
  readonly #signal: AbortSignal;

  constructor(prepared: Prepared, observer: QualityObserver, signal: AbortSignal) {
    this.#prepared = prepared;
    this.#observer = observer;
    this.#signal = signal;
  }

  async measure(): Promise<void> {
    const { options, scenarios, reference, numBlocks } = this.#prepared;
    const isOnDisk = options.referenceLogits !== undefined;
    const { utilization } = options;
    const groups = groupScenarios(scenarios, isOnDisk ? null : reference, { numBlocks, utilization });
    if (isOnDisk && reference !== null) {
      await this.#stage('reference', true, () =>
        this.#keepReference(reference, options.referenceLogits ?? ''),
      );
    }
    if (options.layers) await this.#stage('layers', true, () => this.#measureLayers());
    for (const [i, group] of groups.entries()) {
      if (this.#signal.aborted) return;
      await this.#measureGroup(group, i === groups.length - 1);
    }
  }

  /** Computes the file of logits unless it is there. */
  async #keepReference(reference: PlannedRun, file: string): Promise<void> {
    const { referenceKey: key, options } = this.#prepared;
    if (key === null) throw new BugError('a reference was planned without a key');
    const known = await openReference(file, key);
    if (known !== undefined) return known.close();
    await checkRoom(file, key, options.maxReferenceBytes);
    const model = await this.#load(reference, 'reference');
    try {
      const writer = await ReferenceWriter.create(file, key);
      try {
        await keepReference(model, writer, this.#scoreOptions('reference'));
        await writer.finish();
      } catch (error) {
        await writer.discard();
        throw error;
      }
    } finally {
      await model.runner.close();
    }
  }

  /** Once a scheme: the type of the KV cache changes no weight. */
  async #measureLayers(): Promise<void> {
    const { options, scenarios } = this.#prepared;
    for (const [index, scheme] of options.schemes.entries()) {
      const some = scenarios.filter((scenario) => scenario.scheme === index);
      const metrics = await measureLayers(options, scheme, this.#layerProgress(some[0]?.name), this.#signal);
      for (const scenario of some) this.#record(scenario, { metrics, windows: 0, tokens: 0 });
    }
  }

  #layerProgress(name = ''): (doneBytes: number, totalBytes: number) => void {
    return (doneBytes, totalBytes) => {
      const percent = totalBytes === 0 ? 100 : Math.floor((100 * doneBytes) / totalBytes);
      this.#observer.stage('layers', 'progress', `${name}: ${percent} %`);
    };
  }

  async #measureGroup(group: readonly PlannedScenario[], isLast: boolean): Promise<void> {
    const { windows, prompts } = this.#prepared.inputs;
    const members: Member[] = [];
    let exact: LoadedModel | undefined;
    try {
      await this.#stage('load', isLast, async () => {
        exact = await this.#loadReference();
        for (const scenario of group) members.push({ scenario, model: await this.#load(scenario, 'load') });
      });
      if (windows.length === 0) this.#observer.stage('score', 'skipped');
      else await this.#stage('score', isLast, () => this.#scoreText(members, exact));
      if (prompts.length === 0) this.#observer.stage('answer', 'skipped');
      else await this.#stage('answer', isLast, () => this.#answerPrompts(members));
    } finally {
      await exact?.runner.close();
      for (const { model } of members) await model.runner.close();
    }
  }

  /** The unquantized model, unless its logits are on disk. */
  async #loadReference(): Promise<LoadedModel | undefined> {
    const { reference, options } = this.#prepared;
    if (reference === null || options.referenceLogits !== undefined) return undefined;
    return this.#load(reference, 'load');
  }

  async #scoreText(members: readonly Member[], exact: LoadedModel | undefined): Promise<void> {
    const models = members.map(({ scenario, model }) => ({
      runner: model.runner,
      tally: new Tally(scenario.name),
    }));
    const reader = exact === undefined ? await this.#openFile() : undefined;
    try {
      const source = exact === undefined ? this.#sourceOf(reader, members) : referenceFromModel(exact);
      const windows = await scoreText(models, source, this.#scoreOptions('score'));
      for (const [i, { scenario }] of members.entries()) {
        const tally = models[i]?.tally;
        // An interruption may come before the first step.
        if (tally === undefined || tally.scored === 0) continue;
        const scores = tally.result(source !== null);
        this.#record(scenario, { metrics: textMetrics(scores), windows, tokens: scores.scored });
      }
    } finally {
      await reader?.close();
    }
  }

  async #openFile(): Promise<ReferenceReader | undefined> {
    const { options, referenceKey } = this.#prepared;
    if (options.referenceLogits === undefined || referenceKey === null) return undefined;
    return openReference(options.referenceLogits, referenceKey);
  }

  #sourceOf(reader: ReferenceReader | undefined, members: readonly Member[]): ReferenceSource | null {
    if (reader === undefined) return null;
    const runners = members.map(({ model }) => model.runner);
    const maxRows = Math.max(...runners.map(({ maxLogitRows }) => maxLogitRows));
    return referenceFromFile(reader, maxRows, runners[0]?.vocabSize ?? 0);
  }

  async #answerPrompts(members: readonly Member[]): Promise<void> {
    const { text, inputs, options } = this.#prepared;
    for (const { scenario, model } of members) {
      if (this.#signal.aborted) return;
      const accuracy = await measureAccuracy(model, text, inputs.prompts, {
        maxTokens: options.maxTokens,
        maxNumSeqs: Math.min(options.maxNumSeqs, inputs.prompts.length),
        onProgress: (answered) =>
          this.#observer.stage(
            'answer',
            'progress',
            `${scenario.name}: ${answered} of ${inputs.prompts.length} prompts`,
          ),
        signal: this.#signal,
      });
      if (accuracy !== null) this.#record(scenario, { metrics: [toMetric('accuracy', [accuracy])] });
    }
  }

  /** Adds to what is known of a scenario. */
  #record(
    scenario: PlannedScenario,
    { metrics, ...rest }: Pick<Outcome, 'metrics'> & Partial<Outcome>,
  ): void {
    const known = this.outcomes.get(scenario) ?? { metrics: [], windows: 0, tokens: 0 };
    this.outcomes.set(scenario, { ...known, ...rest, metrics: [...known.metrics, ...metrics] });
  }

  async #load(run: PlannedRun & { readonly name?: string }, stage: QualityStage): Promise<LoadedModel> {
    const name = run.name ?? 'the unquantized model';
    const observer: LoadObserver = {
      phase: (phase) => this.#observer.stage(stage, 'progress', `${name}: ${phase.replace('_', ' ')}`),
      // Said when it was planned.
      warn: () => undefined,
    };
    const options = withBlocks(run.options, this.#prepared.numBlocks);
    return loadModel({ ...options, signal: this.#signal }, observer);
  }

  #scoreOptions(stage: QualityStage): ScoreOptions {
    const { inputs, options } = this.#prepared;
    const { windows } = inputs;
    return {
      windows,
      addon: loadRuntime().addon,
      threads: options.threads,
      onProgress: (done) => this.#observer.stage(stage, 'progress', `${done} of ${windows.length} windows`),
      signal: this.#signal,
    };
  }

  /** @param isLast the stage does not come again */
  async #stage(name: QualityStage, isLast: boolean, work: () => Promise<void>): Promise<void> {
    this.#observer.stage(name, 'start');
    await work();
    if (isLast) this.#observer.stage(name, 'done');
  }
}

function textMetrics({ nll, perplexity, divergence }: TextScores): readonly Metric[] {
  return [
    toMetric('perplexity', [perplexity]),
    toMetric('nll', [nll]),
    ...(divergence === null
      ? []
      : [
          toMetric('kl', [divergence.kl]),
          toMetric('kl_p99', [divergence.klP99]),
          toMetric('top1', [divergence.top1]),
        ]),
  ];
}
