import { countGroups } from './stored-method.js';
import type { StoredMatrix, StoredMethod } from './stored-method.js';
import type { StoredModule } from './stored-module.js';

const CODES_PER_WORD = 8;

/**
 * AWQ as AutoAWQ's `gemm` version writes it: int32 words along n with their nibbles interleaved, zero points as they
 * are. https://arxiv.org/abs/2306.00978
 */
export const awq: StoredMethod = {
  name: 'awq',

  parse(config) {
    // quant_config.json has AutoAWQ's own names.
    config.choose(config.get('w_bit') === undefined ? 'bits' : 'w_bit', [4]);
    const groupK = config.groupSize(config.get('q_group_size') === undefined ? 'group_size' : 'q_group_size');
    if (config.lowerText('version', 'gemm') !== 'gemm') throw config.unsupported('version', '"gemm"');
    if (config.lowerText('backend', 'autoawq') !== 'autoawq')
      throw config.unsupported('backend', '"autoawq"');
    config.choose('zero_point', [true], true);
    return {
      valueSuffixes: [],
      warnings: [],
      describe: (module) => (module.peek('qweight') === undefined ? undefined : describe(module, groupK)),
    };
  },
};

function describe(module: StoredModule, groupK: number): StoredMatrix {
  const { part, size } = module.matrix('qweight', ['I32'], [1, CODES_PER_WORD]);
  const [k, n] = size;
  const groups = countGroups(k, groupK);
  const scales = module.scales('scales', [[groups, n]]);
  const { shape: _shape, ...zeros } = module.part('qzeros', {
    dtypes: ['I32'],
    shapes: [[groups, n / CODES_PER_WORD]],
  });
  return {
    n,
    k,
    format: { native: { format: 'int4', groupN: 1, groupK, asymmetric: true }, activation: 'none' },
    parts: {
      codes: { ...part, layout: 'awq', rowBytes: 0, offsetBinary: true },
      scales: { ...scales.part, layout: 'columns', type: scales.type, reciprocal: false },
      zeroPoints: { ...zeros, layout: 'awq', minusOne: false },
    },
  };
}
