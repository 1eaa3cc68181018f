import { distance } from 'fastest-levenshtein';

/** The candidate a mistyped name most likely meant: one it begins, else one few edits away. */
export function nearest(name: string, candidates: readonly string[]): string | undefined {
  const lower = name.toLowerCase();
  const longer = candidates.filter((candidate) => lower.length >= 3 && candidate.startsWith(lower));
  if (longer.length > 0) return longer.reduce((a, b) => (b.length < a.length ? b : a));
  // Two letters swapped are two edits.
  const maxEdits = name.length < 4 ? 1 : Math.max(2, Math.floor(name.length / 3));
  let best: { readonly candidate: string; readonly edits: number } | undefined;
  for (const candidate of candidates) {
    const edits = distance(lower, candidate);
    if (edits <= maxEdits && (best === undefined || edits < best.edits)) best = { candidate, edits };
  }
  return best?.candidate;
}
