/**
 * What the machine code of each kernel must hold. `kernel` matches the name with its template arguments; the first
 * row that matches counts. `contains` are starts of instruction names; `threads` and `sharedBytes` (dynamic) are
 * those of its launch.
 */
export const KERNELS = [
  // The last argument says that rows are aligned.
  {
    kernel: /^quantize_groups<[12], false, (true|false), true>/,
    contains: ['F2FP.SATFINITE.E4M3', 'LDG.E.128'],
    threads: 256,
  },
  { kernel: /^quantize_groups<[12], false/, contains: ['F2FP.SATFINITE.E4M3', 'LDG'], threads: 256 },
  { kernel: /^quantize_groups<[12], true, true, true>/, contains: ['LDG.E.128'], threads: 256 },
  { kernel: /^quantize_groups/, contains: ['LDG'], threads: 256 },
  {
    kernel: /^quantize_tokens<[12], false, true>/,
    contains: ['F2FP.SATFINITE.E4M3', 'LDG.E.128'],
    threads: 256,
    sharedBytes: 32,
  },
  {
    kernel: /^quantize_tokens<[12], false/,
    contains: ['F2FP.SATFINITE.E4M3', 'LDG'],
    threads: 256,
    sharedBytes: 32,
  },
  { kernel: /^quantize_tokens<[12], true, true>/, contains: ['LDG.E.128'], threads: 256, sharedBytes: 32 },
  { kernel: /^quantize_tokens/, contains: ['LDG'], threads: 256, sharedBytes: 32 },
  { kernel: /^repack_codes/, contains: ['LDG', 'STG.E.128'], threads: 256 },
  // Tokens and rows of a tile, bytes of an output; 0: scales of tiles, 1: of rows.
  ...[
    ['128, 128, 2', 199_248],
    ['128, 128, 4', 232_016],
    ['64, 64, 2', 199_872],
    ['64, 64, 4', 199_872],
    ['64, 32, 2', 150_720],
    ['64, 32, 4', 150_720],
  ].map(([shape, sharedBytes]) => ({
    kernel: new RegExp(`^fp8_linear_warpgroup_kernel<Shape<${shape}>`),
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
];
