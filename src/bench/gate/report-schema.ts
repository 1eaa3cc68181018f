import { z } from 'zod';

/** JSON has no such numbers: fdq writes them as strings. */
const SPECIAL_NUMBERS = ['Infinity', '-Infinity', 'NaN'] as const;
const figure = z.union([z.number(), z.enum(SPECIAL_NUMBERS).transform(Number)]);

const metric = z.looseObject({
  id: z.string(),
  value: figure,
  samples: z.array(figure),
  std: figure,
  interval: z.tuple([figure, figure]).nullable(),
});

export const environmentSchema = z.looseObject({
  date: z.string(),
  platform: z.string(),
  cpu: z.string(),
  cores: z.number(),
  memoryBytes: z.number(),
  isa: z.string().nullable(),
  node: z.string(),
  fdq: z.string(),
  onnxruntime: z.string().nullable(),
  commit: z.string().nullable(),
});

/** A BenchReport as JSON holds it, of this schema or another. */
export const reportSchema = z.looseObject({
  schema: z.string(),
  kind: z.enum(['speed', 'serve', 'quality']),
  environment: environmentSchema,
  scenarios: z.array(
    z.looseObject({
      name: z.string(),
      parameters: z.record(z.string(), z.union([z.string(), z.number(), z.boolean(), z.null()])),
      metrics: z.array(metric),
    }),
  ),
  warnings: z.array(z.string()),
  partial: z.boolean(),
});
