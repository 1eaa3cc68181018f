import { randomUUID } from 'node:crypto';
import type { FastifyRequest } from 'fastify';
import type { z } from 'zod';
import type { ResponseHead } from './chat-response.js';
import { bodyOf, fingerprintOf, resolveModelName, unixSeconds } from './context.js';
import type { ServerContext } from './context.js';
import type { samplingShape, streamShape } from './schema-fields.js';
import { parseFields, refuseUnsupported, unknownFields } from './schema-fields.js';
import type { ServedModel } from './state.js';
import { checkBestOf, checkStreamFields, noteUnknownFields } from './stream-fields.js';

/** What every request for generated tokens has. */
type GenerationSchema = z.ZodObject<typeof streamShape & typeof samplingShape>;

export interface GenerationRequest<S extends GenerationSchema> {
  readonly body: z.output<S>;
  readonly model: ServedModel;
  readonly head: ResponseHead;
}

/**
 * The checked body of a request for generated tokens, and what every answer to it begins with.
 *
 * @param idPrefix of the answer's id, e.g. chatcmpl
 * @throws UserError for fields that are wrong or not supported, for an unknown model, and while there is none
 */
export function readGeneration<S extends GenerationSchema>(
  request: FastifyRequest,
  context: ServerContext,
  schema: S,
  idPrefix: string,
): GenerationRequest<S> {
  const raw = bodyOf(request);
  const model = context.state.requireModel();
  refuseUnsupported(raw);
  const body = parseFields(schema, raw);
  noteUnknownFields(unknownFields(schema, raw), context);
  const name = resolveModelName(body.model, context);
  checkStreamFields(body);
  checkBestOf(body);
  const head = {
    id: `${idPrefix}-${body.request_id ?? randomUUID().replaceAll('-', '')}`,
    created: unixSeconds(),
    model: name,
    fingerprint: fingerprintOf(model, context),
  };
  return { body, model, head };
}
