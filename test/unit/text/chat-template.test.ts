import { afterEach, describe, expect, it, vi } from 'vitest';
import { ChatRenderer } from '../../../src/text/chat-template.js';
import type { ChatRendererOptions } from '../../../src/text/chat-template.js';

const NO_TOKENS = { bos: '<s>', eos: null, pad: null, unk: null };
const HELLO = [{ role: 'user', content: 'hello' }];
const PLAIN =
  '{% for m in messages %}[{{ m.role }}]{{ m.content }}<end>{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}';

const open: ChatRenderer[] = [];

function makeRenderer(template: string, options: Partial<ChatRendererOptions> = {}): ChatRenderer {
  const renderer = new ChatRenderer({
    templates: new Map([['default', template]]),
    specialTokens: NO_TOKENS,
    ...options,
  });
  open.push(renderer);
  return renderer;
}

afterEach(async () => {
  await Promise.all(open.splice(0).map((renderer) => renderer.close()));
});

describe('rendering', () => {
  it('gives special tokens that exist and leaves the others undefined', async () => {
    const renderer = makeRenderer('{{ bos_token }}{{ eos_token is defined }}');
    expect(await renderer.render(HELLO)).toBe('<s>false');
  });

  it('cuts an open final message where its content ends', async () => {
    const renderer = makeRenderer(PLAIN);
    const messages = [...HELLO, { role: 'assistant', content: 'e' }];
    expect(await renderer.render(messages, { continueFinalMessage: true })).toBe(
      '[user]hello<end>[assistant]e',
    );
  });

  it('calls developers system where the template does not know them', async () => {
    const messages = [{ role: 'developer', content: 'be brief' }];
    expect(await makeRenderer(PLAIN).render(messages)).toBe('[system]be brief<end>');
    const knowing = makeRenderer(`{# developer #}${PLAIN}`);
    expect(await knowing.render(messages)).toBe('[developer]be brief<end>');
    const refusing = makeRenderer(
      "{% for m in messages %}{% if m.role == 'developer' %}{{ raise_exception('no') }}{% endif %}{{ m.role }}{% endfor %}",
    );
    expect(await refusing.render(messages)).toBe('system');
  });

  it('passes variables of the request but none that carry the conversation', async () => {
    const renderer = makeRenderer('{{ enable_thinking }}');
    expect(await renderer.render(HELLO, { kwargs: { enable_thinking: 'yes' } })).toBe('yes');
    for (const name of ['messages', 'tokenize', 'chat_template', 'tools', 'bos_token', 'range']) {
      await expect(renderer.render(HELLO, { kwargs: { [name]: true } })).rejects.toMatchObject({
        code: 'invalid_request',
        param: `chat_template_kwargs.${name}`,
      });
    }
  });

  it('uses the template named tool_use for tools', async () => {
    const templates = new Map([
      ['default', 'plain'],
      ['tool_use', 'tools: {{ tools | length }}'],
    ]);
    const renderer = makeRenderer('', { templates });
    expect(await renderer.render(HELLO)).toBe('plain');
    expect(await renderer.render(HELLO, { tools: [{}] })).toBe('tools: 1');
  });

  it('knows the date in English whatever the locale', async () => {
    const text = await makeRenderer("{{ strftime_now('%Y-%m-%d %b') }}").render(HELLO);
    expect(text).toMatch(/^\d{4}-\d\d-\d\d (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)$/);
  });

  it('says so when there is no template', async () => {
    const renderer = makeRenderer('', { templates: new Map() });
    await expect(renderer.render(HELLO)).rejects.toThrow(/no chat template/);
  });
});

/** Each template is a known way to exhaust the Jinja library; the next request must still be answered. */
const ATTACKS: readonly [name: string, template: string, message: RegExp][] = [
  [
    'nested loops',
    '{% for a in range(9999) %}{% for b in range(9999) %}{{ a }}{% endfor %}{% endfor %}',
    /limit/,
  ],
  ['a huge range', '{{ range(100000000) | length }}', /range\(\) of more than/],
  [
    'doubling strings',
    "{% set ns = namespace(s='aaaaaaaaaaaaaaaa') %}{% for i in range(40) %}{% set ns.s = ns.s + ns.s %}{% endfor %}{{ ns.s | length }}",
    /limit|length/,
  ],
  ['long output', '{% for i in range(999) %}aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa{% endfor %}', /output/],
  ['nested parentheses', `{{ ${'('.repeat(5000)}1${')'.repeat(5000)} }}`, /cannot render|limit/],
  ['a syntax error', '{% if %}', /cannot render/],
  ['prototype access', '{{ messages.constructor.constructor("return process")().pid }}', /cannot render/],
];

describe('budget', () => {
  it.each(ATTACKS)('survives %s', async (_name, template, message) => {
    const renderer = makeRenderer('ok', { limits: { timeMs: 1000, memoryMiB: 64, outputChars: 10_000 } });
    const attack = renderer.render(HELLO, { template });
    await expect(attack).rejects.toMatchObject({
      code: 'invalid_request',
      message: expect.stringMatching(message) as string,
    });
    expect(await renderer.render(HELLO)).toBe('ok');
  });

  it('begins when the thread has started, however long that takes', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    try {
      const renderer = makeRenderer('ok');
      const first = renderer.render(HELLO);
      expect(vi.getTimerCount()).toBe(0);
      expect(await first).toBe('ok');
      const second = renderer.render(HELLO);
      expect(vi.getTimerCount()).toBe(1);
      expect(await second).toBe('ok');
      expect(vi.getTimerCount()).toBe(0);
    } finally {
      vi.useRealTimers();
    }
  });

  it('answers those who wait behind an attack', async () => {
    const renderer = makeRenderer('ok', { limits: { timeMs: 1000 } });
    const attack = renderer.render(HELLO, { template: ATTACKS[0]?.[1] as string });
    const behind = Promise.all([renderer.render(HELLO), renderer.render(HELLO)]);
    await expect(attack).rejects.toThrow(/time of 1000 ms/);
    expect(await behind).toEqual(['ok', 'ok']);
  });
});
