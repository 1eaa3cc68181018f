import { UserError } from '../errors.js';
import type { ServerContext } from './context.js';
import { toChatMessages } from './schema-chat.js';
import type { WireMessage } from './schema-chat.js';
import { encodePrompt } from './sampling.js';
import type { ServedModel } from './state.js';

/** The fields of chat and of /tokenize that turn messages into ids. */
export interface TemplateFields {
  readonly messages: readonly WireMessage[];
  readonly add_generation_prompt?: boolean | undefined;
  readonly continue_final_message?: boolean | undefined;
  readonly add_special_tokens?: boolean | undefined;
  readonly chat_template?: string | undefined;
  readonly chat_template_kwargs?: Readonly<Record<string, unknown>> | undefined;
  readonly reasoning_effort?: string | undefined;
}

/** @throws UserError `invalid_request` for what the template refuses, `context_length_exceeded` for hopelessly long chats. */
export async function renderPrompt(
  model: ServedModel,
  fields: TemplateFields,
  context: ServerContext,
): Promise<readonly number[]> {
  const continues = fields.continue_final_message ?? false;
  if (continues && fields.add_generation_prompt === true) {
    throw new UserError(
      'invalid_request',
      'continue_final_message and add_generation_prompt exclude each other.',
      {
        param: 'continue_final_message',
        suggestions: ['Set one of them.'],
      },
    );
  }
  if (fields.chat_template !== undefined && !context.trustRequestChatTemplate) {
    throw new UserError('invalid_request', 'This server does not run a chat template from a request.', {
      param: 'chat_template',
      suggestions: [
        'Leave the field out: the template is the model’s own, or what the server was started with (--chat-template).',
      ],
    });
  }
  const effort = fields.reasoning_effort === undefined ? {} : { reasoning_effort: fields.reasoning_effort };
  const text = await model.renderer.render(toChatMessages(fields.messages), {
    addGenerationPrompt: fields.add_generation_prompt ?? !continues,
    continueFinalMessage: continues,
    kwargs: { ...effort, ...fields.chat_template_kwargs },
    ...(fields.chat_template === undefined ? {} : { template: fields.chat_template }),
  });
  // Templates write the special tokens themselves.
  return encodePrompt(model, text, {
    addSpecialTokens: fields.add_special_tokens ?? false,
    promptWord: 'messages',
  });
}

/** @throws UserError `invalid_request`: the engine needs at least one token to continue. */
export function requireTokens(ids: readonly number[], param: string): readonly number[] {
  if (ids.length > 0) return ids;
  throw new UserError('invalid_request', 'The prompt has no tokens.', {
    param,
    suggestions: ['Send a prompt that is not empty.'],
  });
}
