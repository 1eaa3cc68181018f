const MAX_QUOTED_LENGTH = 120;
/** The longest path that Linux takes (PATH_MAX). */
const MAX_PATH_LENGTH = 4096;

/** Control and format characters (ESC, newlines, bidirectional overrides, lone surrogates). */
const UNPRINTABLE = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu;

function escapeCharacter(character: string): string {
  const code = character.codePointAt(0) ?? 0;
  return code > 0xffff ? `\\u{${code.toString(16)}}` : `\\u${code.toString(16).padStart(4, '0')}`;
}

function escapeUpTo(limit: number, text: string): string {
  const short = text.length > limit ? `${text.slice(0, limit)}...` : text;
  return short.replace(UNPRINTABLE, escapeCharacter);
}

/** Text that comes from a file, made safe to print: no terminal control reaches a message, and it stays short. */
export function printable(text: string): string {
  return escapeUpTo(MAX_QUOTED_LENGTH, text);
}

/** Like `printable`, in double quotes. */
export function quote(text: string): string {
  return `"${printable(text)}"`;
}

/** A path of this machine, whole: its end is what tells files apart. */
export function printablePath(path: string): string {
  return escapeUpTo(MAX_PATH_LENGTH, path);
}

/** Like `printablePath`, in double quotes. */
export function quotePath(path: string): string {
  return `"${printablePath(path)}"`;
}

/** At most `limit` names, and how many more there are. */
export function listNames(names: readonly string[], limit = 4): string {
  const shown = names.slice(0, limit).map(printable).join(', ');
  return names.length > limit ? `${shown} and ${names.length - limit} more` : shown;
}
