import type { FastifyReply, FastifyRequest } from 'fastify';
import { resolveModelName } from './context.js';
import type { ServerContext } from './context.js';

function modelCard(name: string, context: ServerContext): Record<string, unknown> {
  return {
    id: name,
    object: 'model',
    created: context.startedAt,
    owned_by: 'fdq',
    root: context.servedModelNames[0],
    parent: null,
    max_model_len: context.state.loadedModel?.engine.info.maxModelLen ?? null,
    permission: [],
  };
}

/** GET /v1/models; answers while loading, too, because names are known. */
export function handleModels(
  _request: FastifyRequest,
  _reply: FastifyReply,
  context: ServerContext,
): unknown {
  return { object: 'list', data: context.servedModelNames.map((name) => modelCard(name, context)) };
}

/** GET /v1/models/{id}; ids may contain slashes. */
export function handleModel(request: FastifyRequest, _reply: FastifyReply, context: ServerContext): unknown {
  const name = (request.params as { '*': string })['*'];
  return modelCard(resolveModelName(name, context), context);
}
