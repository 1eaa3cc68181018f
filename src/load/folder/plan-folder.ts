import { UserError } from '../../errors.js';
import type { Graph } from '../../graph/ir.js';
import { readConfig, readGenerationFile, type CheckpointLocation } from '../../hub/checkpoint.js';
import { createFolderSource } from '../../hub/model-source.js';
import { listFolder } from '../../hub/weight-files.js';
import { FDQ_DOMAIN } from '../../models/blocks/context.js';
import type { IsaName } from '../../runtime/addon.js';
import { requestOf, weightBytesOf, type QuantizationFlags } from '../apply-quantization.js';
import { chooseArithmetic, type Arithmetic } from '../arithmetic.js';
import type { PlanOptions, ServingPlan } from '../plan.js';
import { openFdqFolder } from './open-folder.js';

/**
 * What serving a folder of `fdq convert` takes; its layers are decided already.
 * @throws UserError `already_quantized` when a flag asks for other layers than the folder has, and as `openFdqFolder`
 */
export async function planFdqFolder(
  location: CheckpointLocation,
  options: PlanOptions,
  isa: IsaName,
): Promise<ServingPlan> {
  const { dir, reference } = location;
  const { manifest, graph, weights } = await openFdqFolder(dir);
  refuseOtherQuantization(reference, options, manifest);
  const { dtype } = options;
  const made = requestOf({ ...manifest.quantization, offline: true }).kvCacheDtype;
  const asked = requestOf(kvCacheFlag(options)).kvCacheDtype;
  const arithmetic = chooseArithmetic({
    isBfloat16: manifest.storedDataType === 'bfloat16',
    dtype,
    kv: asked === 'auto' ? made : asked,
    isa,
  });
  const source = createFolderSource(dir, await listFolder(dir));
  return {
    checkpoint: {
      ...location,
      config: await readConfig(source, dir),
      generationConfig: await readGenerationFile(source),
      tensors: new Map(),
      totalBytes: weights.size,
      files: [weights],
      warnings: [],
    },
    decoder: manifest.decoder,
    graph: withCompute(graph, arithmetic.compute),
    scheme: manifest.scheme,
    layers: manifest.layers,
    weightBytes: weightBytesOf(graph),
    arithmetic,
    warnings: [],
    ...(manifest.errors === undefined ? {} : { errors: new Map(Object.entries(manifest.errors)) }),
  };
}

/** `--dtype` is decided when a model is served, not when it is converted. */
function withCompute(graph: Graph, compute: Arithmetic['compute']): Graph {
  const nodes = graph.nodes.map((node) =>
    node.domain === FDQ_DOMAIN && node.attributes['compute'] !== undefined
      ? { ...node, attributes: { ...node.attributes, compute: { type: 'string', value: compute } as const } }
      : node,
  );
  return { ...graph, nodes };
}

function refuseOtherQuantization(
  reference: string,
  options: PlanOptions,
  { quantization, scheme }: { readonly quantization: QuantizationFlags; readonly scheme: string },
): void {
  const isAsked = [
    options.quantization,
    options.quantizationConfig,
    options.quantizeLmHead,
    options.quantizeEmbeddings,
  ].some((flag) => flag !== undefined);
  if (!isAsked && options.chooseQuantization === undefined) return;
  const asked = requestOf({ ...options, offline: true });
  const made = requestOf({ ...quantization, offline: true });
  if (options.chooseQuantization === undefined && describeRequest(asked) === describeRequest(made)) return;
  throw new UserError(
    'already_quantized',
    `${JSON.stringify(reference)} was converted with ${scheme}, and its layers cannot become others now.`,
    {
      param: 'quantization',
      suggestions: [
        'Leave the quantization flags out: the folder says how its layers are stored.',
        'For other layers convert the original checkpoint again: fdq convert.',
      ],
    },
  );
}

function kvCacheFlag({ kvCacheDtype }: PlanOptions): QuantizationFlags {
  return kvCacheDtype === undefined ? {} : { kvCacheDtype };
}

/** Equal texts for requests that decide equally about layers. */
function describeRequest(request: ReturnType<typeof requestOf>): string {
  return JSON.stringify({ ...request, kvCacheDtype: undefined }, (key, value: unknown) =>
    key === 'scheme' ? (value as { readonly name: string }).name : value,
  );
}
