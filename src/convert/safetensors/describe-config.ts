import type { CheckpointPlan } from '../../load/plan.js';
import type { OutputPlan, StoredModule } from './plan-tensors.js';

type Json = Readonly<Record<string, unknown>>;

/** config.json of the output: the checkpoint's, with what engines must know of the quantized weights. */
export function describeConfig({ checkpoint, plan }: CheckpointPlan, output: OutputPlan): Json {
  const { quantization_config: _, compression_config: __, ...config } = checkpoint.config;
  if (output.modules.length === 0) return config;
  const ignore = ignoredModules(plan.layers, output.modules);
  return {
    ...config,
    quantization_config: output.isBlockFp8
      ? describeFp8(ignore)
      : describeCompressed(output.modules, { ignore, heads: headsOf(plan.layers) }),
  };
}

/** Names of output heads that are not tied to the embeddings. */
function headsOf(layers: CheckpointPlan['plan']['layers']): ReadonlySet<string> {
  const heads = layers.filter(({ kind }) => kind === 'lm_head');
  return new Set(heads.flatMap(({ members }) => members.map(({ name }) => name)));
}

/** Linear layers that stay as they are; a tied lm_head is one too, under a name that no tensor has. */
function ignoredModules(
  layers: CheckpointPlan['plan']['layers'],
  modules: readonly StoredModule[],
): readonly string[] {
  const stored = new Set(modules.map(({ name }) => name));
  const linear = layers.filter(({ kind }) => kind !== 'embedding' && kind !== 'norm');
  const names = linear.flatMap(({ kind, members, names }) =>
    kind === 'tied embedding' ? names : members.map(({ name }) => name),
  );
  return [...new Set(names)].filter((name) => !stored.has(name));
}

/** As DeepSeek and transformers' FineGrainedFP8Config write it. */
function describeFp8(ignore: readonly string[]): Json {
  return {
    quant_method: 'fp8',
    fmt: 'e4m3',
    activation_scheme: 'dynamic',
    weight_block_size: [128, 128],
    modules_to_not_convert: ignore,
  };
}

/** What a config says beside its groups, and of output heads. */
interface Surroundings {
  readonly ignore: readonly string[];
  readonly heads: ReadonlySet<string>;
}

/** One group for each scheme. */
function describeCompressed(modules: readonly StoredModule[], { ignore, heads }: Surroundings): Json {
  const schemes = new Map<string, StoredModule[]>();
  for (const module of modules) schemes.set(module.scheme, [...(schemes.get(module.scheme) ?? []), module]);
  const formats = new Set(modules.map(({ layout }) => layout.format));
  const [format] = formats;
  const isMixed = formats.size > 1;
  const groups = [...schemes.values()].map((members, index) => {
    const { layout } = members[0] as StoredModule;
    const group = {
      targets: targetsOf(members, schemes.size === 1 ? heads : undefined),
      weights: layout.weights,
      input_activations: layout.inputs,
      output_activations: null,
      // compressed-tensors takes int4 with rounded inputs for int-quantized where the group does not say otherwise.
      ...(isMixed || (layout.format === 'pack-quantized' && layout.inputs !== null)
        ? { format: layout.format }
        : {}),
    };
    return [`group_${index}`, group] as const;
  });
  return {
    quant_method: 'compressed-tensors',
    quantization_status: 'compressed',
    format: isMixed ? 'mixed-precision' : format,
    config_groups: Object.fromEntries(groups),
    ignore,
  };
}

/**
 * Of the only group every linear layer, else layers by name. vLLM's output head is of another class than Linear, and
 * is found by its name alone.
 * @param heads given for the only group
 */
function targetsOf(
  members: readonly StoredModule[],
  heads: ReadonlySet<string> | undefined,
): readonly string[] {
  const names = members.map(({ name }) => name);
  return heads === undefined ? names : ['Linear', ...names.filter((name) => heads.has(name))];
}
