import type { FastifyReply, FastifyRequest } from 'fastify';
import { UserError } from '../errors.js';
import { bodyOf, resolveModelName } from './context.js';
import type { ServerContext } from './context.js';
import { renderPrompt } from './prompts.js';
import { checkTokenIds } from './schema-completions.js';
import { parseFields } from './schema-fields.js';
import { detokenizeSchema, tokenizeSchema } from './schema-tokenize.js';
import { encodePrompt } from './sampling.js';

/** POST /tokenize, in vLLM's shape. */
export async function handleTokenize(
  request: FastifyRequest,
  _reply: FastifyReply,
  context: ServerContext,
): Promise<unknown> {
  const body = parseFields(tokenizeSchema, bodyOf(request));
  resolveModelName(body.model, context);
  const model = context.state.requireModel();
  const { messages, prompt } = body;
  if ((messages === undefined) === (prompt === undefined)) {
    throw new UserError('invalid_request', 'Expected either "prompt" or "messages".', {
      param: messages === undefined ? 'prompt' : 'messages',
      suggestions: ['Send exactly one of them.'],
    });
  }
  const tokens =
    messages !== undefined
      ? await renderPrompt(model, { ...body, messages }, context)
      : await encodePrompt(model, prompt ?? '', {
          addSpecialTokens: body.add_special_tokens ?? true,
          promptWord: 'prompt',
        });
  return {
    count: tokens.length,
    max_model_len: model.engine.info.maxModelLen,
    tokens,
    token_strs:
      body.return_token_strs === true ? tokens.map((id) => model.tokenizer.tokenString(id) ?? '') : null,
  };
}

/** POST /detokenize, in vLLM's shape. */
export function handleDetokenize(
  request: FastifyRequest,
  _reply: FastifyReply,
  context: ServerContext,
): unknown {
  const body = parseFields(detokenizeSchema, bodyOf(request));
  resolveModelName(body.model, context);
  const model = context.state.requireModel();
  if (!Array.isArray(body.tokens)) {
    throw new UserError('invalid_request', 'Expected "tokens" to be an array of token ids.', {
      param: 'tokens',
      suggestions: ['Send the ids that /tokenize returns.'],
    });
  }
  const ids = checkTokenIds(body.tokens as readonly unknown[], model.engine.info.vocabSize, 'tokens');
  return { prompt: model.tokenizer.decode(ids) };
}

/** GET /tokenizer_info: what evaluation harnesses need instead of a local tokenizer. */
export function handleTokenizerInfo(
  _request: FastifyRequest,
  _reply: FastifyReply,
  context: ServerContext,
): unknown {
  const { tokenizer } = context.state.requireModel();
  const { bos, eos, pad, unk } = tokenizer.specialTokens;
  return {
    ...tokenizer.config,
    bos_token: bos,
    eos_token: eos,
    pad_token: pad,
    unk_token: unk,
    chat_template: tokenizer.chatTemplates.get('default') ?? null,
  };
}
