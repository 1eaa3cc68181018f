// Matrix products of a warp (mma.sync). Lane 4 g + t holds, by the PTX ISA:
//   m16n8k16, 2-byte: a[0] row g, k 2t 2t+1; a[1] row g + 8; a[2] row g, k + 8; a[3] row g + 8, k + 8
//                     b[0] k 2t 2t+1, column g; b[1] k + 8
//   m16n8k32, 1-byte: a[0] row g, k 4t .. 4t+3; a[1] row g + 8; a[2] row g, k + 16; a[3] row g + 8, k + 16
//                     b[0] k 4t .. 4t+3, column g; b[1] k + 16
//   d[0] d[1]: row g, columns 2t 2t+1; d[2] d[3]: row g + 8
// d += a b. B is given by columns: [n][k] as weights and activations lie in memory.
#pragma once

#include "cuda/device.cuh"

namespace fdq::ptx {

__device__ __forceinline__ void mma_bfloat16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#ifdef FDQ_CUDA_EMULATE
  emu::mma(emu::MmaKind::kBFloat16, d, a, b);
#else
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9},"
      " {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}
__device__ __forceinline__ void mma_float16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#ifdef FDQ_CUDA_EMULATE
  emu::mma(emu::MmaKind::kFloat16, d, a, b);
#else
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9},"
      " {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}
// sm_89 and later.
__device__ __forceinline__ void mma_e4m3(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#ifdef FDQ_CUDA_EMULATE
  emu::mma(emu::MmaKind::kE4M3, d, a, b);
#elif __CUDA_ARCH__ >= 890
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9},"
      " {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}
__device__ __forceinline__ void mma_int8(int32_t (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#ifdef FDQ_CUDA_EMULATE
  emu::mma_int8(d, a, b);
#else
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9},"
      " {%0, %1, %2, %3};"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

}  // namespace fdq::ptx
