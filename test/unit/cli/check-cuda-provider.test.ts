import { describe, expect, it } from 'vitest';
import { fakeLibraries, stubSource } from '../../../scripts/check-cuda-provider.mjs';

const NEEDED = `
 0x0000000000000001 (NEEDED)             Shared library: [libcublas.so.13]
 0x0000000000000001 (NEEDED)             Shared library: [libcurand.so.10]
 0x0000000000000001 (NEEDED)             Shared library: [libcudart.so.13]
 0x0000000000000001 (NEEDED)             Shared library: [libcuda.so.1]
 0x0000000000000001 (NEEDED)             Shared library: [libc.so.6]
 0x0000000000000001 (NEEDED)             Shared library: [libstdc++.so.6]
 0x0000000000000001 (NEEDED)             Shared library: [ld-linux-x86-64.so.2]
 0x000000000000000e (SONAME)             Library soname: [libonnxruntime_providers_cuda.so]
`;
const SYMBOLS = `
                 U __cudaRegisterFunction@libcudart.so.13
                 U cublasCreate_v2@libcublas.so.13
                 U cublasSgemm_v2@libcublas.so.13
                 U cudaMalloc@libcudart.so.13
                 U cuTensorMapEncodeTiled
                 U memcpy@GLIBC_2.14
                 U Provider_GetHost
                 w __gmon_start__
`;

describe('check-cuda-provider', () => {
  it('fakes each library that is not of the system, with the symbols taken from it', () => {
    expect([...fakeLibraries(NEEDED, SYMBOLS)]).toEqual([
      ['libcublas.so.13', ['cublasCreate_v2', 'cublasSgemm_v2']],
      ['libcurand.so.10', []],
      ['libcudart.so.13', ['__cudaRegisterFunction', 'cudaMalloc']],
      ['libcuda.so.1', ['cuTensorMapEncodeTiled']],
    ]);
  });

  it('writes stubs that refuse for the runtime, and succeed for the others', () => {
    expect(stubSource('libcudart.so.13', ['cudaMalloc'])).toContain(
      'int cudaMalloc() { std::fputs("the fake CUDA runtime has no cudaMalloc\\n", stderr); return 801; }',
    );
    const blas = stubSource('libcublas.so.13', ['cublasCreate_v2', 'cublasSgemm_v2']);
    expect(blas).toContain(
      'int cublasCreate_v2(void** handle) { static char made; *handle = &made; return 0; }',
    );
    expect(blas).toContain('int cublasSgemm_v2() { return 0; }');
  });
});
