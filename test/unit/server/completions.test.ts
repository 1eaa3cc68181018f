import { afterEach, describe, expect, it } from 'vitest';
import { UserError } from '../../../src/errors.js';
import { makeApp, readEvents } from '../../helpers/test-server.js';
import type { TestModelOptions } from '../../helpers/test-server.js';

type App = Awaited<ReturnType<typeof makeApp>>;
const open: App[] = [];

async function start(model: TestModelOptions = {}): Promise<App> {
  const app = await makeApp(model);
  open.push(app);
  return app;
}

afterEach(async () => {
  await Promise.all(open.splice(0).map((app) => app.close()));
});

interface Answer {
  readonly choices: {
    readonly index: number;
    readonly text: string;
    readonly finish_reason: string;
    readonly token_ids?: number[];
    readonly logprobs: {
      readonly tokens: string[];
      readonly token_logprobs: (number | null)[];
      readonly top_logprobs: (Record<string, number> | null)[];
      readonly text_offset: number[];
    } | null;
  }[];
  readonly usage: Record<string, unknown>;
  readonly error?: Record<string, unknown>;
}

async function complete(
  app: App,
  payload: Record<string, unknown>,
): Promise<{ status: number; body: Answer; text: string }> {
  const response = await app.app.inject({ method: 'POST', url: '/v1/completions', payload });
  const isStream = String(response.headers['content-type']).startsWith('text/event-stream');
  return {
    status: response.statusCode,
    body: (isStream ? {} : response.json()) as Answer,
    text: response.body,
  };
}

const HELLO = [39, 68, 327, 78];

describe('prompts', () => {
  it.each([
    ['a string', 'Hello', ['Hello']],
    ['strings', ['Hello', 'world'], ['Hello', 'world']],
    ['ids', HELLO, ['Hello']],
    ['lists of ids', [HELLO, HELLO.slice(1)], ['Hello', 'ello']],
  ])('may be %s', async (_name, prompt, texts) => {
    const app = await start({ script: () => [75] });
    const { status, body } = await complete(app, { prompt, echo: true });
    expect(status).toBe(200);
    expect(body.choices.map(({ index, text }) => [index, text])).toEqual(
      texts.map((text, i) => [i, `${text}l`]),
    );
    expect(app.model.engine.requests.map(({ request }) => request.params.maxTokens)).toEqual(
      texts.map(() => 16),
    );
  });

  it.each([
    [undefined, 'prompt'],
    ['', 'prompt'],
    [[], 'prompt'],
    [[[]], 'prompt'],
    [5, 'prompt'],
    [[1, 'a'], 'prompt[1]'],
    [['a', 1], 'prompt[1]'],
    [[1, 2.5], 'prompt[1]'],
    [[1, 512], 'prompt[1]'],
    [[[1], [-1]], 'prompt[1][0]'],
    [[1e308], 'prompt[0]'],
  ])('may not be %j', async (prompt, param) => {
    const { status, body } = await complete(await start(), { prompt });
    expect(status).toBe(400);
    expect(body.error).toMatchObject({ param, code: 'invalid_request' });
  });

  it('number the choices of all prompts in order', async () => {
    const app = await start({
      script: (request, choice) => [request.promptTokenIds[0] ?? 0, 75].slice(choice),
    });
    const { body } = await complete(app, { prompt: ['H', 'e'], n: 2 });
    expect(body.choices.map(({ index, text }) => [index, text])).toEqual([
      [0, 'Hl'],
      [1, 'l'],
      [2, 'el'],
      [3, 'l'],
    ]);
    expect(body.usage).toMatchObject({ prompt_tokens: 2, completion_tokens: 6 });
  });

  it('abort together when one is refused', async () => {
    const app = await start({ isManual: true });
    const { model } = app;
    Object.defineProperty(model.engine, 'isDraining', { get: () => model.engine.requests.length > 0 });
    const response = await app.app.inject({
      method: 'POST',
      url: '/v1/completions',
      payload: { prompt: ['a', 'b'] },
    });
    expect(response.statusCode).toBe(503);
    expect(model.engine.requests).toHaveLength(1);
    expect(model.engine.requests[0]?.signal?.aborted).toBe(true);
  });
});

describe('more prompts than the queue holds', () => {
  it('follow as the first leave it', async () => {
    const app = await start({ isManual: true, maxQueued: 2 });
    const arrivals = Array.from({ length: 5 }, () => app.model.engine.nextRequest());
    const answer = complete(app, { prompt: ['a', 'b', 'c', 'd', 'e'], echo: true });
    for (const arrival of arrivals) {
      const request = await arrival;
      request.start();
      request.emit([75], 0, 'stop');
    }
    const { status, body } = await answer;
    expect(status).toBe(200);
    expect(body.choices.map(({ text }) => text)).toEqual(['al', 'bl', 'cl', 'dl', 'el']);
  });

  it('are not handed over any more when one failed', async () => {
    const app = await start({ isManual: true, maxQueued: 2 });
    const first = app.model.engine.nextRequest();
    const answer = complete(app, { prompt: ['a', 'b', 'c', 'd', 'e'] });
    (await first).fail(new UserError('invalid_request', 'No token is left.'));
    expect((await answer).status).toBe(400);
    expect(app.model.engine.requests).toHaveLength(2);
    expect(app.model.engine.requests[1]?.signal?.aborted).toBe(true);
  });
});

describe('log-likelihood scoring', () => {
  it('answers what lm-eval sends and reads', async () => {
    const app = await start();
    const { status, body } = await complete(app, {
      model: 'fake',
      prompt: [HELLO, HELLO.slice(0, 2)],
      temperature: 0,
      max_tokens: 1,
      logprobs: 1,
      seed: 1234,
      echo: true,
    });
    expect(status).toBe(200);
    for (const [i, ids] of [HELLO, HELLO.slice(0, 2)].entries()) {
      const logprobs = body.choices[i]?.logprobs;
      expect(logprobs?.tokens).toHaveLength(ids.length + 1);
      expect(logprobs?.token_logprobs[0]).toBeNull();
      expect(logprobs?.top_logprobs[0]).toBeNull();
      logprobs?.token_logprobs.slice(1).forEach((value, at) => {
        // The harness tests greediness by comparing two floats.
        expect(Math.max(...Object.values(logprobs.top_logprobs[at + 1] ?? {}))).toBe(value);
      });
    }
    expect(body.choices[0]?.logprobs?.text_offset).toEqual([0, 1, 2, 4, 5]);
  });

  it('scores without generating', async () => {
    const app = await start();
    const { body } = await complete(app, { prompt: 'Hello', max_tokens: 0, echo: true, logprobs: 0 });
    expect(body.choices[0]).toMatchObject({ text: 'Hello', finish_reason: 'length' });
    expect(body.choices[0]?.logprobs?.tokens).toEqual(['H', 'e', 'll', 'o']);
    expect(app.model.engine.requests[0]?.request.params).toMatchObject({ maxTokens: 0, promptLogprobs: 0 });
    expect((await complete(app, { prompt: 'Hello', max_tokens: 0 })).body.error).toMatchObject({
      param: 'max_tokens',
    });
  });
});

describe('max_tokens of completions', () => {
  it('is 16 when the request does not say, whatever the model’s own default', async () => {
    const app = await start({ defaults: { maxTokens: 128 } });
    const { body } = await complete(app, { prompt: HELLO });
    expect(body.usage).toMatchObject({ completion_tokens: 16 });
  });

  it('by default is cut to what the context leaves, prompt by prompt', async () => {
    const app = await start();
    const long = Array.from({ length: 254 }, () => 1);
    const { status } = await complete(app, { prompt: [long, HELLO] });
    expect(status).toBe(200);
    expect(app.model.engine.requests.map(({ request }) => request.params.maxTokens)).toEqual([2, 16]);
  });
});

describe('fields of completions', () => {
  it.each([
    [{ suffix: 'x' }, 'suffix'],
    [{ logprobs: true }, 'logprobs'],
    [{ logprobs: 21 }, 'logprobs'],
    [{ best_of: 4, n: 2 }, 'best_of'],
    [{ prompt: Array.from({ length: 2049 }, () => 'a') }, 'prompt'],
    [{ prompt: Array.from({ length: 40 }, () => 'a'), n: 128 }, 'n'],
  ])('refuse %#', async (fields, param) => {
    const { status, body } = await complete(await start(), { prompt: 'a', ...fields });
    expect(status).toBe(400);
    expect(body.error).toMatchObject({ param });
  });

  it('keep the last tokens of a prompt that is to be truncated', async () => {
    const app = await start({ script: () => [75] });
    await complete(app, { prompt: HELLO, truncate_prompt_tokens: 2 });
    expect(app.model.engine.requests[0]?.request.promptTokenIds).toEqual(HELLO.slice(2));
  });

  it('overflow with the words clients match', async () => {
    const { body } = await complete(await start(), {
      prompt: Array.from({ length: 250 }, () => 1),
      max_tokens: 10,
    });
    expect(body.error).toMatchObject({
      code: 'context_length_exceeded',
      message: expect.stringContaining(
        'you requested 260 tokens (250 in the prompt, 10 in the completion)',
      ) as string,
    });
  });
});

describe('a stream of completions', () => {
  it('answers the payload of vllm bench serve', async () => {
    const app = await start();
    const { text } = await complete(app, {
      model: 'fake',
      prompt: 'Hello',
      temperature: 0,
      repetition_penalty: 1.0,
      max_tokens: 5,
      logprobs: null,
      stream: true,
      stream_options: { include_usage: true },
      ignore_eos: true,
    });
    const events = readEvents(text).slice(0, -1) as (Answer & {
      usage: { completion_tokens: number } | null;
    })[];
    expect(events.at(-1)).toMatchObject({ choices: [], usage: { completion_tokens: 5 } });
    expect(
      events
        .slice(0, -1)
        .map(({ choices }) => choices[0]?.text)
        .join(''),
    ).toBe('"""""');
    expect(events.at(-2)?.choices[0]?.finish_reason).toBe('length');
    expect(app.model.engine.requests[0]?.request.params.ignoreEos).toBe(true);
  });

  it('repeats the prompt with the first piece of each choice', async () => {
    const app = await start({ script: () => [75] });
    const { text } = await complete(app, { prompt: ['H', 'e'], n: 2, stream: true, echo: true, logprobs: 1 });
    const events = readEvents(text).slice(0, -1) as Answer[];
    const texts = new Map(events.map(({ choices }) => [choices[0]?.index, choices[0]?.text]));
    expect([...texts].sort()).toEqual([
      [0, 'Hl'],
      [1, 'Hl'],
      [2, 'el'],
      [3, 'el'],
    ]);
    expect(events[0]?.choices[0]?.logprobs?.text_offset).toEqual([0, 1]);
  });
});
