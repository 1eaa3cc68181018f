/** One way to store a layer. */
export interface Choice {
  readonly bytes: number;
  /** What choosing it costs; sums over layers are compared. */
  readonly cost: number;
}

/** Steps of the byte scale of the exact search, and how much of a table it may fill. */
const MAX_STEPS = 1 << 14;
const MAX_CELLS = 1 << 25;

/**
 * One choice a layer, of the least total cost among those of at most `budget` bytes: the multiple-choice knapsack
 * problem. Two searches run and the better answer is taken. The first walks down the convex hulls of cost over bytes
 * (Sinha and Zoltners 1979): it misses the optimum by less than one step of one layer. The second is dynamic
 * programming over bytes, rounded up to 1 / 16384 of what can be spent so that it never exceeds the budget: exact
 * where that unit is a byte, left out where its table would be too large.
 * @param layers the choices of each layer; none may be empty
 * @returns the index of each layer's choice, the same for the same input; undefined when nothing fits
 */
export function chooseWithin(
  layers: readonly (readonly Choice[])[],
  budget: number,
): readonly number[] | undefined {
  const hulls = layers.map(efficientChoices);
  const least = hulls.reduce((sum, [smallest]) => sum + (smallest?.choice.bytes ?? 0), 0);
  if (least > budget) return undefined;
  const greedy = walkHulls(hulls, budget - least);
  const exact = searchTable(hulls, budget - least);
  const answers = exact === undefined ? [greedy] : [exact, greedy];
  const costs = answers.map((answer) => totalOf(layers, answer).cost);
  return answers[(costs[1] ?? Infinity) < (costs[0] as number) ? 1 : 0];
}

/** Bytes and cost of a selection. */
export function totalOf(layers: readonly (readonly Choice[])[], selection: readonly number[]): Choice {
  let bytes = 0;
  let cost = 0;
  for (const [layer, index] of selection.entries()) {
    const choice = layers[layer]?.[index];
    bytes += choice?.bytes ?? 0;
    cost += choice?.cost ?? 0;
  }
  return { bytes, cost };
}

interface Indexed {
  readonly index: number;
  readonly choice: Choice;
}

/** Choices that no other beats in both bytes and cost, by rising bytes and so by falling cost. */
function efficientChoices(choices: readonly Choice[]): readonly Indexed[] {
  const sorted = choices
    .map((choice, index) => ({ index, choice }))
    .sort((a, b) => a.choice.bytes - b.choice.bytes || a.choice.cost - b.choice.cost || a.index - b.index);
  const kept: Indexed[] = [];
  for (const entry of sorted) {
    const last = kept.at(-1);
    if (last === undefined || entry.choice.cost < last.choice.cost) kept.push(entry);
  }
  return kept;
}

interface Step {
  readonly layer: number;
  readonly to: number;
  readonly bytes: number;
  /** Cost saved by a byte. */
  readonly gain: number;
}

/** Takes the steps of all hulls by falling gain while they fit; what does not fit is passed over. */
function walkHulls(layers: readonly (readonly Indexed[])[], spare: number): readonly number[] {
  const steps = layers.flatMap((choices, layer) => hullSteps(choices, layer));
  steps.sort((a, b) => b.gain - a.gain || a.layer - b.layer || a.bytes - b.bytes);
  const reached = layers.map((choices) => choices[0] as Indexed);
  let left = spare;
  for (const { layer, to } of steps) {
    const target = layers[layer]?.[to] as Indexed;
    const extra = target.choice.bytes - (reached[layer] as Indexed).choice.bytes;
    if (extra > left || target.choice.cost >= (reached[layer] as Indexed).choice.cost) continue;
    left -= extra;
    reached[layer] = target;
  }
  return reached.map(({ index }) => index);
}

/** Steps from one vertex of the lower convex hull to the next. */
function hullSteps(choices: readonly Indexed[], layer: number): readonly Step[] {
  const steps: Step[] = [];
  let at = 0;
  while (at < choices.length - 1) {
    const from = (choices[at] as Indexed).choice;
    let best: Step | undefined;
    for (let to = at + 1; to < choices.length; to++) {
      const { bytes, cost } = (choices[to] as Indexed).choice;
      const gain = (from.cost - cost) / (bytes - from.bytes);
      if (best === undefined || gain >= best.gain) best = { layer, to, bytes: bytes - from.bytes, gain };
    }
    if (best === undefined) break;
    steps.push(best);
    at = best.to;
  }
  return steps;
}

/** Dynamic programming over the bytes spent beyond the smallest choice of each layer. */
function searchTable(layers: readonly (readonly Indexed[])[], spare: number): readonly number[] | undefined {
  const most = layers.reduce((sum, choices) => sum + extraBytes(choices, choices.length - 1), 0);
  const limit = Math.min(spare, most);
  const unit = Math.max(1, Math.ceil(limit / MAX_STEPS));
  const steps = Math.floor(limit / unit);
  if (layers.length * (steps + 1) > MAX_CELLS) return undefined;
  let costs = new Float64Array(steps + 1);
  const chosen = layers.map((choices) => {
    const next = new Float64Array(steps + 1).fill(Infinity);
    const picks = new Uint8Array(steps + 1);
    for (const [index, { choice }] of choices.entries()) {
      const weight = Math.ceil(extraBytes(choices, index) / unit);
      for (let spent = weight; spent <= steps; spent++) {
        const cost = (costs[spent - weight] as number) + choice.cost;
        if (cost < (next[spent] as number)) {
          next[spent] = cost;
          picks[spent] = index;
        }
      }
    }
    costs = next;
    return picks;
  });
  const answer: number[] = [];
  let spent = steps;
  for (let layer = layers.length - 1; layer >= 0; layer--) {
    const choices = layers[layer] as readonly Indexed[];
    const pick = chosen[layer]?.[spent] ?? 0;
    answer[layer] = (choices[pick] as Indexed).index;
    spent -= Math.ceil(extraBytes(choices, pick) / unit);
  }
  return answer;
}

function extraBytes(choices: readonly Indexed[], index: number): number {
  return (choices[index]?.choice.bytes ?? 0) - (choices[0]?.choice.bytes ?? 0);
}
