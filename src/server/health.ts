import type { FastifyReply, FastifyRequest } from 'fastify';
import type { ServerContext } from './context.js';

/** GET /health and /ping: 200 only when requests are taken. Body {status}, with {step, progress} while loading. */
export function handleHealth(
  request: FastifyRequest,
  reply: FastifyReply,
  context: ServerContext,
): FastifyReply {
  const { phase, loading } = context.state;
  reply.header('cache-control', 'no-store');
  if (phase === 'ready') return reply.send({ status: 'ok' });
  reply.code(503).header('retry-after', '5');
  if (phase === 'loading') {
    request.record.isExpected = true;
    return reply.send({ status: 'loading', step: loading.step, progress: loading.progress });
  }
  return reply.send({ status: phase });
}

/** GET /live: the process runs and its event loop turns, loading or not. */
export function handleLive(_request: FastifyRequest, reply: FastifyReply): FastifyReply {
  return reply.header('cache-control', 'no-store').send({ status: 'ok' });
}

/** GET /version */
export function handleVersion(
  _request: FastifyRequest,
  _reply: FastifyReply,
  context: ServerContext,
): unknown {
  const { version, onnxruntime, commit, isa } = context.build;
  return { version, onnxruntime, commit: commit ?? null, isa: isa ?? null };
}

/** GET /load, in vLLM's sense: generation requests under way. */
export function handleLoad(_request: FastifyRequest, _reply: FastifyReply, context: ServerContext): unknown {
  return { server_load: context.state.inFlight };
}

/** GET /metrics in Prometheus' text format. */
export async function handleMetrics(
  _request: FastifyRequest,
  reply: FastifyReply,
  context: ServerContext,
): Promise<FastifyReply> {
  const text = await context.metrics.render();
  return reply.type(context.metrics.contentType).send(text);
}
