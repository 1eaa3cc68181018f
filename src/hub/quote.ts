const MAX_QUOTED_LENGTH = 120;

/** Control and format characters (ESC, newlines, bidirectional overrides, lone surrogates). */
const UNPRINTABLE = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu;

function escapeCharacter(character: string): string {
  const code = character.codePointAt(0) ?? 0;
  return code > 0xffff ? `\\u{${code.toString(16)}}` : `\\u${code.toString(16).padStart(4, '0')}`;
}

/** Text that comes from a file, made safe to print: no terminal control reaches a message, and it stays short. */
export function printable(text: string): string {
  const short = text.length > MAX_QUOTED_LENGTH ? `${text.slice(0, MAX_QUOTED_LENGTH)}...` : text;
  return short.replace(UNPRINTABLE, escapeCharacter);
}

/** Like `printable`, in double quotes. */
export function quote(text: string): string {
  return `"${printable(text)}"`;
}

/** At most `limit` names, and how many more there are. */
export function listNames(names: readonly string[], limit = 4): string {
  const shown = names.slice(0, limit).map(printable).join(', ');
  return names.length > limit ? `${shown} and ${names.length - limit} more` : shown;
}
