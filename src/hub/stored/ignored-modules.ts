import { UserError } from '../../errors.js';

/**
 * Whether a list of a quantization config names the module: by its name, a part of its path, a `*` glob, or `re:`
 * and a regular expression that matches from the start of the name.
 * @throws UserError `invalid_checkpoint` for a pattern that is no regular expression.
 */
export function matchesModule(name: string, patterns: readonly string[]): boolean {
  return patterns.some((pattern) => {
    if (pattern.startsWith('re:')) return compile(pattern).test(name);
    if (pattern.includes('*')) return matchesGlob(name, pattern);
    return name === pattern || name.startsWith(`${pattern}.`);
  });
}

function compile(pattern: string): RegExp {
  try {
    return new RegExp(`^(?:${pattern.slice('re:'.length)})`, 'u');
  } catch (cause) {
    throw new UserError(
      'invalid_checkpoint',
      `Expected patterns of quantization_config to be regular expressions but ${JSON.stringify(pattern.slice(0, 80))} is none.`,
      {
        param: 'quantization_config',
        suggestions: ['Fetch config.json again from where the model was published.'],
        cause,
      },
    );
  }
}

/** `*` is any text, as in shells. Takes the first place for each piece, so time does not grow with the stars. */
function matchesGlob(name: string, pattern: string): boolean {
  const [first = '', ...rest] = pattern.split('*');
  const last = rest.pop() ?? '';
  if (!name.startsWith(first) || name.length < first.length + last.length || !name.endsWith(last))
    return false;
  const end = name.length - last.length;
  let at = first.length;
  return rest.every((piece) => {
    const found = name.indexOf(piece, at);
    at = found + piece.length;
    return found >= 0 && at <= end;
  });
}
