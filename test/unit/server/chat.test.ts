import { afterEach, describe, expect, it } from 'vitest';
import { readEvents } from '../../helpers/test-server.js';
import { MESSAGES, HELLO, chat, open, start } from './chat-fixture.js';

afterEach(async () => {
  await Promise.all(open.splice(0).map((app) => app.close()));
});

describe('a whole answer', () => {
  it('has every key OpenAI requires, null where there is nothing', async () => {
    const app = await start({ script: () => HELLO });
    const { status, body } = await chat(app, {});
    expect(status).toBe(200);
    expect(body).toEqual({
      id: expect.stringMatching(/^chatcmpl-[0-9a-f]{32}$/) as string,
      object: 'chat.completion',
      created: expect.any(Number) as number,
      model: 'fake',
      system_fingerprint: 'fdq-9.9.9-wint8-cpu',
      choices: [
        {
          index: 0,
          message: { role: 'assistant', content: 'Hello', refusal: null },
          logprobs: null,
          finish_reason: 'stop',
          stop_reason: null,
        },
      ],
      usage: {
        prompt_tokens: 41,
        completion_tokens: 4,
        total_tokens: 45,
        prompt_tokens_details: { cached_tokens: 0 },
        completion_tokens_details: { reasoning_tokens: 0 },
      },
    });
  });

  it('orders choices by index and counts the prompt once', async () => {
    const app = await start({ script: (_request, choice) => HELLO.slice(choice) });
    const { body } = await chat(app, { n: 3 });
    const { choices, usage } = body as unknown as {
      choices: { index: number; message: { content: string } }[];
      usage: { prompt_tokens: number; completion_tokens: number };
    };
    expect(choices.map(({ index, message }) => [index, message.content])).toEqual([
      [0, 'Hello'],
      [1, 'ello'],
      [2, 'llo'],
    ]);
    expect(usage).toMatchObject({ prompt_tokens: 41, completion_tokens: 9 });
  });

  it('reports logprobs with bytes, and the parts of a character by their bytes', async () => {
    const app = await start();
    const ids = app.model.tokenizer.encode('日', false);
    const split = await start({ script: () => ids });
    const { body } = await chat(split, { logprobs: true, top_logprobs: 2 });
    const { content } = (
      body as unknown as { choices: [{ logprobs: { content: Record<string, unknown>[] } }] }
    ).choices[0].logprobs;
    expect(content.map(({ token }) => token)).toEqual(['bytes:\\xe6', 'bytes:\\x97', 'bytes:\\xa5']);
    expect(content.flatMap(({ bytes }) => bytes)).toEqual([...Buffer.from('日')]);
    expect(content[0]?.['top_logprobs']).toHaveLength(2);
    expect(content[0]?.['logprob']).toBe(
      (content[0]?.['top_logprobs'] as { token: string; logprob: number }[]).find(
        ({ token }) => token === 'bytes:\\xe6',
      )?.logprob,
    );
  });

  it('gives ids and prompt logprobs when asked', async () => {
    const app = await start({ script: () => HELLO });
    const { body } = await chat(app, {
      return_token_ids: true,
      prompt_logprobs: 1,
      return_tokens_as_token_ids: true,
      logprobs: true,
    });
    const answer = body as unknown as {
      prompt_token_ids: number[];
      prompt_logprobs: unknown[];
      choices: [{ token_ids: number[]; logprobs: { content: { token: string }[] } }];
    };
    expect(answer.prompt_token_ids).toHaveLength(41);
    expect(answer.prompt_logprobs).toHaveLength(41);
    expect(answer.prompt_logprobs[0]).toBeNull();
    expect(answer.choices[0].token_ids).toEqual(HELLO);
    expect(answer.choices[0].logprobs.content[0]?.token).toBe('token_id:39');
  });
});

describe('messages', () => {
  it('may be parts, assistants without content, and tool results', async () => {
    const app = await start({ script: () => HELLO });
    const { status } = await chat(app, {
      messages: [
        { role: 'developer', content: 'be brief' },
        {
          role: 'user',
          content: [
            { type: 'text', text: 'a' },
            { type: 'text', text: 'b' },
          ],
        },
        {
          role: 'assistant',
          content: null,
          tool_calls: [{ id: 'c', type: 'function', function: { name: 'f', arguments: '{"x":1}' } }],
        },
        { role: 'tool', tool_call_id: 'c', content: '21' },
      ],
    });
    expect(status).toBe(200);
    const prompt = app.model.tokenizer.decode(app.model.engine.requests[0]?.request.promptTokenIds ?? []);
    expect(prompt).toContain('<|im_start|>system\nbe brief');
    expect(prompt).toContain('<|im_start|>user\na\nb<|im_end|>');
    expect(prompt).toContain('"arguments": {"x": 1}');
  });

  it('may leave the last one open', async () => {
    const app = await start({ script: () => HELLO });
    await chat(app, {
      messages: [...MESSAGES, { role: 'assistant', content: 'Well, ' }],
      continue_final_message: true,
    });
    const prompt = app.model.tokenizer.decode(app.model.engine.requests[0]?.request.promptTokenIds ?? []);
    expect(prompt.endsWith('<|im_start|>assistant\nWell, ')).toBe(true);
  });
});

describe('a stream', () => {
  it('is these chunks and nothing else', async () => {
    const app = await start({ script: () => HELLO.slice(0, 2) });
    const { text } = await chat(app, { stream: true });
    const created = /"created":(\d+)/.exec(text)?.[1] as string;
    const id = /"id":"(chatcmpl-[0-9a-f]+)"/.exec(text)?.[1] as string;
    const chunk = (choice: string): string =>
      `data: {"id":"${id}","object":"chat.completion.chunk","created":${created},"model":"fake","system_fingerprint":"fdq-9.9.9-wint8-cpu","choices":[${choice}]}\n\n`;
    expect(text).toBe(
      chunk('{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}') +
        chunk('{"index":0,"delta":{"content":"H"},"logprobs":null,"finish_reason":null}') +
        chunk('{"index":0,"delta":{"content":"e"},"logprobs":null,"finish_reason":null}') +
        chunk('{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop","stop_reason":null}') +
        'data: [DONE]\n\n',
    );
  });

  it('carries usage only when asked, in a last chunk without choices', async () => {
    const app = await start({ script: () => HELLO });
    const { text } = await chat(app, { stream: true, stream_options: { include_usage: true } });
    const events = readEvents(text) as { choices: unknown[]; usage: unknown }[];
    const chunks = events.slice(0, -1);
    expect(chunks.slice(0, -1).every(({ usage }) => usage === null)).toBe(true);
    expect(chunks.at(-1)).toMatchObject({
      choices: [],
      usage: { prompt_tokens: 41, completion_tokens: 4, total_tokens: 45 },
    });
    const continuous = await chat(app, {
      stream: true,
      stream_options: { include_usage: true, continuous_usage_stats: true },
    });
    const counts = (
      readEvents(continuous.text).slice(0, -1) as { usage: { completion_tokens: number } }[]
    ).map(({ usage }) => usage.completion_tokens);
    expect(counts).toEqual([1, 1, 2, 3, 4, 4, 4]);
  });

  it('starts and ends every choice', async () => {
    const app = await start({ script: () => HELLO });
    const { text } = await chat(app, { stream: true, n: 2, return_token_ids: true, logprobs: true });
    const events = readEvents(text).slice(0, -1) as {
      choices: [
        {
          index: number;
          delta: { role?: string };
          token_ids?: number[];
          finish_reason: string | null;
          logprobs: unknown;
        },
      ];
    }[];
    for (const index of [0, 1]) {
      const own = events.map(({ choices }) => choices[0]).filter((choice) => choice.index === index);
      expect(own.filter(({ delta }) => delta.role === 'assistant')).toHaveLength(1);
      expect(own.filter((choice) => choice.finish_reason !== null)).toHaveLength(1);
      expect(own.at(-1)?.finish_reason).toBe('stop');
      expect(own.flatMap(({ token_ids }) => token_ids ?? [])).toEqual(HELLO);
      expect(own[1]?.logprobs).toMatchObject({ content: [{ token: 'H' }] });
    }
  });

  it('reports a failure as an event, then ends', async () => {
    const app = await start({ isManual: true });
    const next = app.model.engine.nextRequest();
    const answer = chat(app, { stream: true });
    const request = await next;
    request.start();
    request.emit([39]);
    request.fail(new Error('kernel exploded at 0xdead'));
    const { text } = await answer;
    expect(readEvents(text).at(-2)).toEqual({
      error: {
        message: expect.not.stringContaining('0xdead') as string,
        type: 'server_error',
        param: null,
        code: 'internal_error',
      },
    });
    expect(text.endsWith('data: [DONE]\n\n')).toBe(true);
  });
});
