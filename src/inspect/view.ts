import { checkWritable } from '../cli/write-file.js';
import { UserError } from '../errors.js';
import { parseCondition, parseSorting, type Condition, type Sorting } from './conditions.js';

/** How a report is shown, checked before a model is opened. */
export interface View {
  readonly failIf: readonly Condition[];
  readonly filters: readonly Condition[];
  readonly sorting: Sorting | undefined;
  readonly explain: string | undefined;
  /** Model or report to compare with. */
  readonly diff: string | undefined;
  readonly markdown: boolean;
  /** File for the page. */
  readonly html: string | undefined;
  readonly saveConfig: string | undefined;
}

interface ViewFlags {
  readonly measure: boolean | undefined;
  readonly quantization: string | undefined;
  readonly 'fail-if': readonly string[] | undefined;
  readonly filter: readonly string[] | undefined;
  readonly sort: string | undefined;
  readonly explain: string | undefined;
  readonly diff: string | undefined;
  readonly markdown: boolean | undefined;
  readonly html: string | undefined;
  readonly model: string | undefined;
  readonly 'save-quantization-config': string | undefined;
  readonly 'max-weight-bytes': number | undefined;
  readonly 'max-error': number | undefined;
}

/** @throws UserError `usage` for conditions that cannot be read or held, flags that exclude each other and a page that
 * cannot be written */
export function parseView(flags: ViewFlags): View {
  const failIf = (flags['fail-if'] ?? []).map((text) => parseCondition(text, '--fail-if'));
  const filters = (flags.filter ?? []).map((text) => parseCondition(text, '--filter'));
  const sorting = flags.sort === undefined ? undefined : parseSorting(flags.sort);
  const isMeasured =
    flags.measure === true ||
    flags['max-weight-bytes'] !== undefined ||
    flags['max-error'] !== undefined ||
    flags.model?.endsWith('.json') === true;
  requireMeasured([...failIf, ...filters], isMeasured);
  if (sorting?.column.measured === true && !isMeasured) throw needsMeasure('--sort', sorting.column.id);
  requireOneOutput(flags);
  if (flags.html !== undefined) checkWritable(flags.html, '--html');
  return {
    failIf,
    filters,
    sorting,
    explain: flags.explain,
    diff: flags.diff,
    markdown: flags.markdown ?? false,
    html: flags.html,
    saveConfig: flags['save-quantization-config'],
  };
}

function requireMeasured(conditions: readonly Condition[], isMeasured: boolean): void {
  const condition = conditions.find(({ column }) => column.measured);
  if (condition !== undefined && !isMeasured) throw needsMeasure(condition.text, condition.column.id);
}

function needsMeasure(what: string, column: string): UserError {
  return new UserError('usage', `${what} needs ${column}, which is known only after measuring.`, {
    param: 'measure',
    suggestions: ['Add --measure.'],
  });
}

/** Explanations and comparisons have no table that could be sorted or drawn. */
function requireOneOutput(flags: ViewFlags): void {
  const [mode, ...more] = (['explain', 'diff'] as const).filter((name) => flags[name] !== undefined);
  const others = (['markdown', 'html', 'sort', 'filter', 'fail-if'] as const).filter((name) => {
    const value = flags[name];
    return value !== undefined && value !== false && (!Array.isArray(value) || value.length > 0);
  });
  const [other] = [...more, ...others];
  if (mode === undefined || other === undefined) return;
  throw new UserError('usage', `--${mode} has an output of its own and cannot be joined with --${other}.`, {
    param: mode,
    suggestions: ['Leave one of the two out.'],
  });
}
