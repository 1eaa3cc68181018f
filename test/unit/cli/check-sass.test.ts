import { describe, expect, it } from 'vitest';
import {
  countInstructions,
  findSerialized,
  findSpills,
  judge,
  occupancy,
  readResources,
  shortName,
} from '../../../scripts/check-sass.mjs';

const SASS = `
		Function : _Zfirst
	.headerflags	@"EF_CUDA_SM90"
        /*0000*/                   LDC R1, c[0x0][0x28] ;       /* 0x00000a00ff017b82 */
                                                                /* 0x000fe20000000800 */
        /*0010*/              @!P0 QGMMA.64x128x32.F32.E4M3.E4M3 R24, gdesc[UR4], R24, !UPT ;  /* 0x0 */
        /*0020*/              @UP1 UTMALDG.2D [UR8], [UR4] ;    /* 0x0 */
        /*0030*/                   LDC R2, c[0x0][0x30] ;       /* 0x0 */
		Function : _Zsecond
        /*0000*/                   EXIT ;                       /* 0x0 */
`;
const RESOURCES = `
 Function _Zfirst:
  REG:168 STACK:0 SHARED:1024 LOCAL:0 CONSTANT[0]:600 TEXTURE:0 SURFACE:0 SAMPLER:0
 Function _Zsecond:
  REG:16 STACK:48 SHARED:1280 LOCAL:8 CONSTANT[0]:528
`;

describe('check-sass', () => {
  it('counts instructions by kernel, with and without predicates', () => {
    const kernels = countInstructions(SASS);
    expect(Object.fromEntries(kernels.get('_Zfirst') ?? [])).toEqual({
      LDC: 2,
      'QGMMA.64x128x32.F32.E4M3.E4M3': 1,
      'UTMALDG.2D': 1,
    });
    expect(Object.fromEntries(kernels.get('_Zsecond') ?? [])).toEqual({ EXIT: 1 });
  });

  it('reads registers, spills and shared memory beyond what the system reserves', () => {
    expect(readResources(RESOURCES).get('_Zfirst')).toEqual({
      registers: 168,
      spillBytes: 0,
      sharedBytes: 0,
    });
    expect(readResources(RESOURCES).get('_Zsecond')).toEqual({
      registers: 16,
      spillBytes: 56,
      sharedBytes: 256,
    });
  });

  it('finds kernels whose products of a warpgroup wait for each other', () => {
    const product = (group: string) =>
      `        /*0010*/      HGMMA.64x16x16.F32.BF16 R24, R32, gdesc[UR4], R24${group} ;  /* 0x0 */\n`;
    const kernel = (name: string, groups: string[]) =>
      `\t\tFunction : ${name}\n${groups.map(product).join('')}        /*0050*/      EXIT ;   /* 0x0 */\n`;
    const text =
      kernel('_Zgrouped', ['', '', ', gsb0']) +
      kernel('_Zserial', [', gsb0', ', gsb0']) +
      kernel('_Zone', [', gsb0']) +
      SASS;
    expect(findSerialized(text)).toEqual(['_Zserial']);
  });

  it('names the target of each spill in a library of several', () => {
    const text = `
Fatbin elf code:
================
arch = sm_80
${RESOURCES}
Fatbin elf code:
================
arch = sm_100a
${RESOURCES.replace('STACK:48', 'STACK:0')}`;
    expect(findSpills(text)).toEqual([
      { target: 'sm_80', mangled: '_Zsecond', bytes: 56 },
      { target: 'sm_100a', mangled: '_Zsecond', bytes: 8 },
    ]);
    expect(findSpills(RESOURCES)).toEqual([]);
  });

  it('calculates blocks a multiprocessor by the scarcest resource', () => {
    expect(occupancy(40, 256, 0)).toEqual({ blocks: 6, percent: 75 });
    expect(occupancy(32, 256, 0)).toEqual({ blocks: 8, percent: 100 });
    expect(occupancy(168, 384, 100 * 1024)).toEqual({ blocks: 1, percent: 19 });
    expect(occupancy(32, 128, 100 * 1024)).toEqual({ blocks: 2, percent: 13 });
    expect(occupancy(16, 32, 0)).toEqual({ blocks: 32, percent: 50 });
    expect(occupancy(255, 512, 0).blocks).toBe(0);
  });

  it('shortens names to the kernel and its template arguments', () => {
    const demangled =
      'void fdq::cuda::(anonymous namespace)::quantize_tokens<(fdq::ElementType)1, false, true>(fdq::cuda::(anonymous namespace)::ActivationJob)';
    expect(shortName(demangled)).toBe('quantize_tokens<1, false, true>');
  });

  it('names what is missing, spilled, unknown or stale', () => {
    const table = [
      { kernel: /^first$/, contains: ['QGMMA', 'UTMASTG'], threads: 384, sharedBytes: 1024 },
      { kernel: /^third$/, contains: [], threads: 32 },
    ];
    const { rows, problems } = judge(
      ['first', 'second'],
      countInstructions(SASS),
      readResources(RESOURCES),
      table,
    );
    expect(rows).toEqual([
      {
        name: 'first',
        registers: 168,
        threads: 384,
        sharedBytes: 1024,
        blocks: 1,
        percent: 19,
        instructions: { QGMMA: 1, UTMASTG: 0 },
      },
    ]);
    expect(problems).toEqual([
      'first: no UTMASTG instruction',
      'second: not in scripts/sass-kernels.mjs, or without resources',
      'no kernel is called /^third$/',
    ]);
    const spilled = judge(
      ['second'],
      countInstructions(SASS.slice(SASS.indexOf('Function : _Zsecond'))),
      readResources(RESOURCES),
      [{ kernel: /second/, contains: [], threads: 32 }],
    );
    expect(spilled.problems).toEqual(['second: 56 bytes of spilled registers or local memory']);
  });
});
