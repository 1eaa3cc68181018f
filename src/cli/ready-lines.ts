import { counted } from '../counted.js';
import { formatBytes, printable } from './render.js';

export interface ReadyFacts {
  readonly servedModelName: string;
  readonly chat: boolean;
  readonly scheme: string;
  readonly weightBytes: number;
  readonly kvTokens: number;
  readonly kvDataType: string;
  readonly kvBytesPerToken: number;
  readonly maxModelLen: number;
  readonly modelMaxLen: number;
  readonly maxNumSeqs: number;
  readonly loadSeconds: number;
}

/** The ready line, and a command that gets a first answer from the server. */
export function readyLines(
  url: string,
  facts: ReadyFacts,
  { hasApiKey }: { readonly hasApiKey: boolean },
): string {
  const ready = [
    `Ready: ${url}`,
    printable(facts.servedModelName),
    facts.scheme,
    `weights ${formatBytes(facts.weightBytes)}`,
    `KV cache ${facts.kvTokens} tokens of ${formatBytes(facts.kvBytesPerToken)} (${facts.kvDataType})`,
    `context ${contextText(facts)} tokens`,
    counted(facts.maxNumSeqs, 'sequence'),
    `loaded in ${facts.loadSeconds.toFixed(1)} s`,
  ].join(' | ');
  return `${ready}\n${curlLine(url, facts, hasApiKey)}\n`;
}

function contextText({ maxModelLen, modelMaxLen }: ReadyFacts): string {
  return maxModelLen < modelMaxLen ? `${maxModelLen} of ${modelMaxLen}` : String(maxModelLen);
}

function curlLine(url: string, { servedModelName, chat }: ReadyFacts, hasApiKey: boolean): string {
  const content = 'What is 15 plus 85?';
  const body = chat
    ? { model: servedModelName, messages: [{ role: 'user', content }] }
    : { model: servedModelName, prompt: content };
  return [
    'curl',
    // The certificate of a machine that has no public name is signed by itself.
    ...(url.startsWith('https:') ? ['-k'] : []),
    `${reachable(url)}/v1/${chat ? 'chat/completions' : 'completions'}`,
    "-H 'content-type: application/json'",
    ...(hasApiKey ? ['-H "authorization: Bearer $FDQ_API_KEY"'] : []),
    `-d ${shellQuote(JSON.stringify(body))}`,
  ].join(' ');
}

/** An address to connect to where the server listens on all of them. */
function reachable(url: string): string {
  return url.replace('//0.0.0.0', '//127.0.0.1').replace('//[::]', '//[::1]');
}

function shellQuote(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
