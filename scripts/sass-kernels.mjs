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
];
