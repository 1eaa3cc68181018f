// Perplexity, KL divergence and accuracy of the demo model, as models/demo/reference.json defines them.
/* global fetch */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { loadTokenizer } from '../../dist/text/tokenizer.js';

export const DEMO = path.join(import.meta.dirname, '..', '..', 'models', 'demo');
const WINDOW = 256;
const WINDOWS_PER_STEP = 4;
const BLOCK_SIZE = 16;
const BLOCKS_PER_WINDOW = WINDOW / BLOCK_SIZE;
const MAX_TOKENS = 96;
const STREAMS = 48;

/** Room for the windows of one step. */
export const QUALITY_MEMORY = {
  utilization: 0.9,
  numBlocks: WINDOWS_PER_STEP * BLOCKS_PER_WINDOW,
  maxBatchedTokens: WINDOW * WINDOWS_PER_STEP,
  maxModelLen: 512,
};

/** Consecutive pieces of eval.txt, 256 tokens each. */
export async function readWindows() {
  const tokenizer = await loadTokenizer(DEMO);
  const ids = tokenizer.encode(readFileSync(path.join(DEMO, 'eval.txt'), 'utf8'), false);
  return Array.from({ length: Math.floor(ids.length / WINDOW) }, (_, i) => [
    ...ids.slice(i * WINDOW, (i + 1) * WINDOW),
  ]);
}

/** Logits of every position but the last of each window, [windows * 255, vocab]. */
function runWindows(runner, windows) {
  const tokens = windows.length * WINDOW;
  return runner.logits({
    tokenIds: Int32Array.from(windows.flat()),
    positions: Int32Array.from({ length: tokens }, (_, i) => i % WINDOW),
    queryStarts: Int32Array.from({ length: windows.length + 1 }, (_, i) => i * WINDOW),
    contextLengths: new Int32Array(windows.length).fill(WINDOW),
    blockTables: Int32Array.from({ length: windows.length * BLOCKS_PER_WINDOW }, (_, i) => i),
    blockTableStride: BLOCKS_PER_WINDOW,
    logitIndices: Int32Array.from({ length: tokens }, (_, i) => i).filter((i) => i % WINDOW !== WINDOW - 1),
  });
}

/** Natural log of the sum of exponentials. */
function logSumExp(logits) {
  let max = -Infinity;
  for (const value of logits) if (value > max) max = value;
  let sum = 0;
  for (const value of logits) sum += Math.exp(value - max);
  return max + Math.log(sum);
}

function argMax(values) {
  let best = 0;
  for (let v = 1; v < values.length; v++) if (values[v] > values[best]) best = v;
  return best;
}

/** Calls visit(logits, index of the position, next token) for every scored position of eval.txt. */
async function eachPosition(runner, vocabSize, visit) {
  const windows = await readWindows();
  let position = 0;
  for (let first = 0; first < windows.length; first += WINDOWS_PER_STEP) {
    const some = windows.slice(first, first + WINDOWS_PER_STEP);
    const logits = await runWindows(runner, some);
    for (let row = 0; row < logits.length / vocabSize; row++) {
      const target = some[Math.floor(row / (WINDOW - 1))][(row % (WINDOW - 1)) + 1];
      visit(logits.subarray(row * vocabSize, (row + 1) * vocabSize), position++, target);
    }
  }
  return position;
}

/** The probabilities a model gives at every position, to compare others with. */
export async function readReference(runner, vocabSize) {
  const probabilities = [];
  const negentropy = [];
  const best = [];
  await eachPosition(runner, vocabSize, (logits) => {
    const norm = logSumExp(logits);
    const p = new Float32Array(vocabSize);
    let sum = 0;
    for (let v = 0; v < vocabSize; v++) {
      const probability = Math.exp(logits[v] - norm);
      p[v] = probability;
      sum += probability * (logits[v] - norm);
    }
    probabilities.push(p);
    negentropy.push(sum);
    best.push(argMax(logits));
  });
  return { probabilities, negentropy, best };
}

/** Perplexity, KL divergence from the reference in nats, and share of positions with its most likely token. */
export async function measureQuality({ probabilities, negentropy, best }, runner, vocabSize) {
  let nll = 0;
  let kl = 0;
  let agree = 0;
  const scored = await eachPosition(runner, vocabSize, (logits, position, target) => {
    const norm = logSumExp(logits);
    const p = probabilities[position];
    let cross = 0;
    for (let v = 0; v < vocabSize; v++) cross += p[v] * logits[v];
    kl += negentropy[position] - (cross - norm);
    nll -= logits[target] - norm;
    agree += argMax(logits) === best[position] ? 1 : 0;
  });
  return { perplexity: Math.exp(nll / scored), kl: kl / scored, agreement: agree / scored };
}

/** Share of the held-out prompts that a running server answers correctly. */
export async function measureAccuracy(url) {
  const prompts = readFileSync(path.join(DEMO, 'eval.jsonl'), 'utf8').trim().split('\n').map(JSON.parse);
  let next = 0;
  let correct = 0;
  const worker = async () => {
    for (let prompt = prompts[next++]; prompt !== undefined; prompt = prompts[next++]) {
      if (isCorrect(prompt, await ask(url, prompt.messages))) correct++;
    }
  };
  await Promise.all(Array.from({ length: STREAMS }, worker));
  return correct / prompts.length;
}

async function ask(url, messages) {
  const response = await fetch(`${url}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ messages, temperature: 0, max_tokens: MAX_TOKENS }),
  });
  return (await response.json()).choices[0].message.content;
}

function isCorrect({ match, expected }, answer) {
  if (match === 'exact') return answer.trim() === expected;
  if (match === 'json') return canonicalJson(answer) === canonicalJson(expected);
  let from = 0;
  return expected.every((part) => {
    const at = answer.indexOf(part, from);
    from = at + part.length;
    return at >= 0;
  });
}

function canonicalJson(text) {
  const sorted = (_, value) =>
    typeof value === 'object' && value !== null && !Array.isArray(value)
      ? Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)))
      : value;
  try {
    return JSON.stringify(JSON.parse(text), sorted);
  } catch {
    return undefined;
  }
}
