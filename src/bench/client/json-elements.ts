/** One element of a file with many, as text, and the line it starts on. */
export interface JsonElement {
  readonly text: string;
  readonly line: number;
}

const NEWLINE = 10;
const QUOTE = 34;
const COMMA = 44;
const BACKSLASH = 92;
const OPENING = new Set([91, 123]);
const CLOSING = new Set([93, 125]);
const BLANKS = new Set([9, NEWLINE, 13, 32]);

/** The lines of a JSON lines file that hold something. */
export function* splitLines(bytes: Buffer): Generator<JsonElement> {
  let start = 0;
  for (let line = 1; start < bytes.length; line++) {
    const found = bytes.indexOf(NEWLINE, start);
    const end = found === -1 ? bytes.length : found;
    const text = bytes.toString('utf8', start, end).trim();
    if (text !== '') yield { text, line };
    start = end + 1;
  }
}

/**
 * The elements of a JSON array, each to be parsed by itself: the whole of a large file does not fit into one string, and
 * this way every element has a line. Structure within elements is left to the parser.
 * @throws SyntaxError where the file is no array or ends within one
 */
export function* splitArray(bytes: Buffer): Generator<JsonElement> {
  const scan = { at: 0, line: 1 };
  skipBlanks(bytes, scan);
  if (bytes[scan.at] !== 91) throw new SyntaxError(`Line ${scan.line}: expected an array, "[".`);
  scan.at++;
  for (;;) {
    skipBlanks(bytes, scan);
    const start = scan.at;
    const { line } = scan;
    skipElement(bytes, scan);
    const text = bytes.toString('utf8', start, scan.at).trim();
    if (scan.at >= bytes.length)
      throw new SyntaxError(`Line ${line}: the array does not end after this entry.`);
    if (text !== '') yield { text, line };
    if (bytes[scan.at] !== COMMA) return;
    scan.at++;
  }
}

interface Scan {
  at: number;
  line: number;
}

function skipBlanks(bytes: Buffer, scan: Scan): void {
  for (; BLANKS.has(bytes[scan.at] ?? 0); scan.at++) if (bytes[scan.at] === NEWLINE) scan.line++;
}

/** Up to the comma or bracket that ends the element. */
function skipElement(bytes: Buffer, scan: Scan): void {
  let depth = 0;
  let isQuoted = false;
  for (; scan.at < bytes.length; scan.at++) {
    const byte = bytes[scan.at] ?? 0;
    if (byte === NEWLINE) scan.line++;
    else if (isQuoted) {
      if (byte === BACKSLASH) scan.at++;
      else if (byte === QUOTE) isQuoted = false;
    } else if (byte === QUOTE) isQuoted = true;
    else if (OPENING.has(byte)) depth++;
    else if (depth === 0 && (byte === COMMA || CLOSING.has(byte))) return;
    else if (CLOSING.has(byte)) depth--;
  }
}
