import { distance } from 'fastest-levenshtein';

/** The `count` names most like `text`, nearest first; equally near ones keep their order. */
export function nearestNames(text: string, names: readonly string[], count: number): readonly string[] {
  return [...new Set(names)]
    .map((name) => ({ name, distance: distance(text, name) }))
    .sort((a, b) => a.distance - b.distance)
    .slice(0, count)
    .map(({ name }) => name);
}
