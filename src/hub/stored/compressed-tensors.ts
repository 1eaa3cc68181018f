import { UnsupportedError } from '../../errors.js';
import { describeCompressed, VALUE_SUFFIXES } from './compressed-module.js';
import { parseScheme } from './compressed-scheme.js';
import type { CompressedScheme } from './compressed-scheme.js';
import type { ConfigFields } from './config-fields.js';
import { matchesModule } from './ignored-modules.js';
import { KV_SCALES_WARNING } from './stored-method.js';
import type { StoredMethod } from './stored-method.js';
import type { StoredModule } from './stored-module.js';

/** Modules that a group of the config is about. */
interface Group {
  readonly scheme: CompressedScheme;
  readonly targets: readonly string[];
}

/** A target that means every linear layer, by its class. */
const EVERY_LINEAR = 'Linear';

/**
 * compressed-tensors, as llm-compressor writes it: groups of modules with a scheme each.
 * https://github.com/vllm-project/compressed-tensors
 */
export const compressedTensors: StoredMethod = {
  name: 'compressed-tensors',

  parse(config) {
    config.choose('quantization_status', ['compressed'], 'compressed');
    const sparsity = config.object('sparsity_config');
    sparsity?.choose('format', ['dense'], 'dense');
    refuseTransforms(config);
    const groups = parseGroups(config);
    const ignored = config.texts('ignore');
    return {
      valueSuffixes: VALUE_SUFFIXES,
      warnings: config.get('kv_cache_scheme') === undefined ? [] : [KV_SCALES_WARNING],
      describe: (module) => {
        if (!isCompressed(module)) return undefined;
        if (matchesModule(module.name, ignored)) {
          throw module.refuse('is stored quantized, though the ignore list of quantization_config names it');
        }
        return describeCompressed(module, schemeOf(module, groups));
      },
    };
  },
};

function parseGroups(config: ConfigFields): readonly Group[] {
  const groups = config.object('config_groups');
  const format = config.text('format');
  return (groups?.keys() ?? []).map((name) => {
    const fields = groups?.object(name) as ConfigFields;
    const targets = fields.texts('targets');
    return { targets, scheme: parseScheme(fields, format) };
  });
}

/** Rotations that must be applied to activations (SpinQuant, QuIP). */
function refuseTransforms(config: ConfigFields): void {
  const transforms = config.object('transform_config');
  if (transforms !== undefined && transforms.keys().length > 0) {
    throw new UnsupportedError(
      'unsupported_model',
      'quantization_config.transform_config rotates activations; fdq loads compressed-tensors checkpoints without transforms.',
      {
        param: 'quantization_config.transform_config',
        suggestions: [
          'Use the unquantized checkpoint this one was made from: fdq quantizes it while loading.',
        ],
      },
    );
  }
}

function isCompressed(module: StoredModule): boolean {
  if (module.peek('weight_packed') !== undefined) return true;
  const weight = module.peek('weight');
  if (weight === undefined) return false;
  if (weight.dtype === 'I8' || weight.dtype === 'F8_E4M3') return true;
  if (module.peek('weight_scale') !== undefined) {
    throw module.refuse(`has weight_scale, but its weight is stored as ${weight.dtype}`);
  }
  return false;
}

/** Names and patterns come before the class of all linear layers. */
function schemeOf(module: StoredModule, groups: readonly Group[]): CompressedScheme {
  const named = groups.find(({ targets }) =>
    matchesModule(
      module.name,
      targets.filter((target) => target !== EVERY_LINEAR),
    ),
  );
  const group = named ?? groups.find(({ targets }) => targets.includes(EVERY_LINEAR));
  if (group === undefined)
    throw module.refuse('is stored quantized, but no group of quantization_config is about it');
  return group.scheme;
}
