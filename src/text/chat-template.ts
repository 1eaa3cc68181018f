import { randomBytes } from 'node:crypto';
import { UserError } from '../errors.js';
import { DEFAULT_TEMPLATE_LIMITS, TemplateWorker } from './template-worker.js';
import type { TemplateLimits, TemplateOutcome } from './template-worker.js';
import type { SpecialTokens } from './tokenizer-files.js';

/** One message as templates see it; other keys (tool_calls, name ...) pass through. */
export interface ChatMessage {
  readonly role: string;
  readonly content: string | null;
  readonly [key: string]: unknown;
}

export interface RenderOptions {
  readonly addGenerationPrompt?: boolean;
  /** The last message is left open for the model to go on with; excludes addGenerationPrompt. */
  readonly continueFinalMessage?: boolean;
  readonly tools?: readonly unknown[];
  /** Template variables of the request; see `RESERVED_VARIABLES`. */
  readonly kwargs?: Readonly<Record<string, unknown>>;
  /** Replaces the model's template; only from a trusted source. */
  readonly template?: string;
}

/** Names a request's chat_template_kwargs may not set: they carry the conversation or the renderer's own functions. */
export const RESERVED_VARIABLES: ReadonlySet<string> = new Set([
  'messages',
  'conversation',
  'tools',
  'documents',
  'tokenize',
  'chat_template',
  'add_generation_prompt',
  'continue_final_message',
  'return_tensors',
  'return_dict',
  'padding',
  'truncation',
  'max_length',
  'tokenizer_kwargs',
  'bos_token',
  'eos_token',
  'pad_token',
  'unk_token',
  'raise_exception',
  'strftime_now',
  'range',
  'namespace',
  '__proto__',
  'constructor',
  'prototype',
]);

export interface ChatRendererOptions {
  readonly templates: ReadonlyMap<string, string>;
  readonly specialTokens: SpecialTokens;
  readonly limits?: Partial<TemplateLimits>;
}

function refuse(message: string, suggestion: string, param = 'messages'): UserError {
  return new UserError('invalid_request', message, { param, suggestions: [suggestion] });
}

/** Renders chats with the model's Jinja template, in a thread with a budget (`TemplateWorker`). */
export class ChatRenderer {
  readonly #options: ChatRendererOptions;
  readonly #worker: TemplateWorker;

  constructor(options: ChatRendererOptions) {
    this.#options = options;
    this.#worker = new TemplateWorker({ ...DEFAULT_TEMPLATE_LIMITS, ...options.limits });
  }

  get hasTemplate(): boolean {
    return this.#options.templates.size > 0;
  }

  /**
   * The prompt of a chat.
   * @throws UserError `invalid_request`: no template, the template refuses, cannot render these messages, or overruns a limit.
   */
  async render(messages: readonly ChatMessage[], options: RenderOptions = {}): Promise<string> {
    const kwargs = options.kwargs ?? {};
    for (const name of Object.keys(kwargs)) {
      if (RESERVED_VARIABLES.has(name)) {
        throw refuse(
          `chat_template_kwargs cannot set "${name}".`,
          'Use the request field of that name where there is one.',
          `chat_template_kwargs.${name}`,
        );
      }
    }
    const source = options.template ?? this.#sourceFor(options);
    // Only newer templates know the role; others would print it or refuse it.
    const knowsDeveloper = source.includes('developer');
    const mapped = knowsDeveloper ? messages : withoutDeveloper(messages);
    const outcome = await this.#renderOnce(source, mapped, options);
    if (
      outcome.kind === 'refused' &&
      knowsDeveloper &&
      messages.some((message) => message.role === 'developer')
    ) {
      return unwrap(await this.#renderOnce(source, withoutDeveloper(messages), options));
    }
    return unwrap(outcome);
  }

  async close(): Promise<void> {
    await this.#worker.close();
  }

  #sourceFor(options: RenderOptions): string {
    const { templates } = this.#options;
    const hasTools = (options.tools?.length ?? 0) > 0;
    const source =
      (hasTools ? templates.get('tool_use') : undefined) ??
      templates.get('default') ??
      [...templates.values()][0];
    if (source !== undefined) return source;
    throw refuse(
      'This model has no chat template.',
      'Use /v1/completions, or give the server a template with --chat-template.',
    );
  }

  async #renderOnce(
    source: string,
    messages: readonly ChatMessage[],
    options: RenderOptions,
  ): Promise<TemplateOutcome> {
    const { bos, eos, pad, unk } = this.#options.specialTokens;
    const named = { bos_token: bos, eos_token: eos, pad_token: pad, unk_token: unk };
    const marker =
      options.continueFinalMessage === true ? `\uE000${randomBytes(12).toString('hex')}\uE000` : null;
    const variables = {
      ...options.kwargs,
      ...Object.fromEntries(Object.entries(named).filter(([, token]) => token !== null)),
      messages: marker === null ? messages : withMarker(messages, marker),
      add_generation_prompt: options.addGenerationPrompt ?? false,
      ...((options.tools?.length ?? 0) > 0 ? { tools: options.tools } : {}),
    };
    const outcome = await this.#worker.run(source, variables);
    if (marker === null || outcome.kind !== 'rendered') return outcome;
    const end = outcome.text.lastIndexOf(marker);
    if (end < 0) return { kind: 'refused', message: 'the template drops the end of the message to continue' };
    return { kind: 'rendered', text: outcome.text.slice(0, end).replaceAll(marker, '') };
  }
}

function withoutDeveloper(messages: readonly ChatMessage[]): readonly ChatMessage[] {
  return messages.map((message) => (message.role === 'developer' ? { ...message, role: 'system' } : message));
}

/**
 * Marks where the last message ends, so that the rendered prompt can be cut there. transformers searches the rendered text for
 * the message's content instead, which finds the wrong place when the template's own closing text contains it.
 */
function withMarker(messages: readonly ChatMessage[], marker: string): readonly ChatMessage[] {
  const last = messages.at(-1);
  if (last === undefined) return messages;
  return [...messages.slice(0, -1), { ...last, content: (last.content ?? '') + marker }];
}

function unwrap(outcome: TemplateOutcome): string {
  switch (outcome.kind) {
    case 'rendered':
      return outcome.text;
    case 'refused':
      throw refuse(
        `The model's chat template refuses these messages: ${outcome.message}`,
        'Change the roles or their order as the message says.',
      );
    case 'failed':
      throw refuse(
        `The model's chat template cannot render these messages: ${outcome.message}`,
        'Send every message with a role and a text content.',
      );
    case 'exceeded':
      throw refuse(
        `Rendering the chat template exceeded its limit: ${outcome.limit}.`,
        'Send fewer or shorter messages.',
      );
  }
}
