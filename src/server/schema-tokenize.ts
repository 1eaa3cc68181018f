import { z } from 'zod';
import { templateShape } from './schema-chat.js';

export const tokenizeSchema = z.object({
  ...templateShape,
  model: z.string().optional(),
  messages: templateShape.messages.optional(),
  prompt: z.string().optional(),
  return_token_strs: z.boolean().optional(),
});

export const detokenizeSchema = z.object({
  model: z.string().optional(),
  tokens: z.unknown(),
});
