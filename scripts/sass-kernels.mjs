/**
 * What the machine code of each kernel must hold. `kernel` matches the name with its template arguments; the first
 * row that matches counts. `contains` are starts of instruction names; `threads` and `sharedBytes` (dynamic) are
 * those of its launch.
 */
export const KERNELS = [
  // The last argument says that rows are aligned.
  {
    kernel: /^quantize_groups<[012], false, (true|false), true>/,
    contains: ['F2FP.SATFINITE.E4M3', 'LDG.E.128'],
    threads: 256,
  },
  { kernel: /^quantize_groups<[012], false/, contains: ['F2FP.SATFINITE.E4M3', 'LDG'], threads: 256 },
  { kernel: /^quantize_groups<[012], true, true, true>/, contains: ['LDG.E.128'], threads: 256 },
  { kernel: /^quantize_groups/, contains: ['LDG'], threads: 256 },
  {
    kernel: /^quantize_tokens<[012], false, true>/,
    contains: ['F2FP.SATFINITE.E4M3', 'LDG.E.128'],
    threads: 256,
    sharedBytes: 32,
  },
  {
    kernel: /^quantize_tokens<[012], false/,
    contains: ['F2FP.SATFINITE.E4M3', 'LDG'],
    threads: 256,
    sharedBytes: 32,
  },
  { kernel: /^quantize_tokens<[012], true, true>/, contains: ['LDG.E.128'], threads: 256, sharedBytes: 32 },
  { kernel: /^quantize_tokens/, contains: ['LDG'], threads: 256, sharedBytes: 32 },
  { kernel: /^convert_rows<[12], true>/, contains: ['LDG.E.128', 'F2FP', 'STG.E.128'], threads: 256 },
  { kernel: /^convert_rows/, contains: ['LDG', 'F2FP', 'STG.E.128'], threads: 256 },
  { kernel: /^repack_codes/, contains: ['LDG', 'STG.E.128'], threads: 256 },
  // Tokens and rows of a tile, bytes of an output; 0: scales of tiles, 1: of rows.
  ...[
    ['256, 128, 2', 216_112],
    ['128, 128, 2', 199_248],
    ['128, 128, 4', 232_016],
    ['64, 64, 2', 199_872],
    ['64, 64, 4', 199_872],
    ['64, 32, 2', 150_720],
    ['64, 32, 4', 150_720],
  ].map(([shape, sharedBytes]) => ({
    kernel: new RegExp(`^fp8_linear_warpgroup_kernel<tiles::Shape<${shape}>`),
    contains: ['QGMMA', 'UTMALDG.2D', 'UTMALDG.2D.MULTICAST', 'USETMAXREG', 'SYNCS'],
    threads: 384,
    sharedBytes,
  })),
  ...[
    [8, 209_488],
    [16, 222_160],
    [32, 226_880],
    [64, 223_648],
  ].map(([tokens, sharedBytes]) => ({
    kernel: new RegExp(`^fp8_linear_skinny_kernel<Shape<${tokens}>`),
    contains: ['QGMMA', 'UTMALDG.2D', 'SYNCS'],
    threads: 288,
    sharedBytes,
  })),
  // mma.sync of e4m3 is that of float16 on sm_90a, which has better kernels.
  ...[1, 2, 4].map((tiles) => ({
    kernel: new RegExp(`^fp8_linear_streaming_kernel<${tiles},`),
    contains: ['HMMA.16816.F32', 'LDG.E.NA.128'],
    threads: 256,
    sharedBytes: tiles * 4352,
  })),
  {
    kernel: /^fp8_linear_mma_kernel/,
    contains: ['HMMA.16816.F32', 'LDSM.16.M88.4', 'LDGSTS'],
    threads: 256,
    sharedBytes: 98_304,
  },
  // The shape of the wgmma kernels of int8 (3) and int4 (4): float16 or bfloat16, groups of 32 or not, consumers,
  // tokens, boxes of a unit, reserved bytes. HGMMA with A in registers; the shapes' totals of shared memory.
  ...[
    ['3, (?:true|false), false, 4, 16, 2, 128', 194_768],
    ['3, (?:true|false), false, 4, 32, 2, 128', 215_248],
    ['3, (?:true|false), false, 4, 64, 2, 128', 204_992],
    ['3, (?:true|false), false, 2, 128, 2, 128', 200_896],
    ['3, (?:true|false), true, 4, 16, 2, 128', 205_008],
    ['3, (?:true|false), true, 4, 32, 2, 128', 225_488],
    ['3, (?:true|false), true, 4, 64, 2, 128', 213_184],
    ['3, (?:true|false), true, 2, 128, 2, 128', 204_992],
    ['4, (?:true|false), false, 4, 16, 2, 128', 230_608],
    ['4, (?:true|false), false, 4, 32, 2, 128', 217_280],
    ['4, (?:true|false), false, 4, 64, 2, 128', 212_144],
    ['4, (?:true|false), false, 2, 128, 1, 128', 211_408],
    ['4, (?:true|false), true, 4, 16, 2, 128', 204_992],
    ['4, (?:true|false), true, 4, 32, 2, 128', 178_352],
    ['4, (?:true|false), true, 4, 64, 2, 128', 227_504],
    ['4, (?:true|false), true, 2, 128, 1, 128', 217_808],
  ].map(([shape, sharedBytes]) => ({
    kernel: new RegExp(`^weight_only_skinny_kernel<WeightOnlyShape<${shape}>`),
    contains: ['HGMMA.64x', 'UTMALDG.2D', 'LDS', 'USETMAXREG', 'SYNCS'],
    threads: shape.includes(', 4, ') ? 640 : 384,
    sharedBytes,
  })),
  ...[
    ['3, (?:true|false), false', 183_344],
    ['3, (?:true|false), true', 186_416],
    ['4, (?:true|false), false', 201_792],
    ['4, (?:true|false), true', 206_912],
  ].map(([shape, sharedBytes]) => ({
    kernel: new RegExp(`^weight_only_warpgroup_kernel<WeightOnlyShape<${shape}, 2, 128, [12], 32768>`),
    contains: ['HGMMA.64x128x16', 'UTMALDG.2D', 'UTMALDG.2D.MULTICAST', 'UTMASTG.2D', 'USETMAXREG'],
    threads: 384,
    sharedBytes,
  })),
  // int8 and int4 by tiles of 8 tokens.
  ...[
    ['3, (?:true|false), 2', 39_936],
    ['3, (?:true|false), 4', 52_224],
    ['3, (?:true|false), 8', 76_800],
    ['4, (?:true|false), 2', 47_360],
    ['4, (?:true|false), 4', 40_704],
    ['4, (?:true|false), 8', 87_040],
  ].map(([shape, sharedBytes]) => ({
    kernel: new RegExp(`^weight_only_mma_kernel<Shape<${shape}>`),
    contains: ['HMMA.16816.F32', 'LDSM.16.M88.4', 'LDGSTS', 'LDS'],
    threads: 256,
    sharedBytes,
  })),
  { kernel: /^measure_weight/, contains: ['LDG.E.128', 'REDG.E.MAX', 'REDG.E.MIN.64'], threads: 256 },
  {
    kernel: /^encode_weight<[0-2], 5>/,
    contains: ['F2FP.SATFINITE.E4M3', 'LDG.E.128', 'STG.E.128'],
    threads: 256,
  },
  { kernel: /^encode_weight/, contains: ['FRND', 'STG.E.128'], threads: 256 },
  { kernel: /^built_for_device$/, contains: [], threads: 1 },
  { kernel: /^(?:clear|finish)_scales/, contains: ['STG'], threads: 256 },
  { kernel: /^spread_scale/, contains: ['STG'], threads: 256 },
];
