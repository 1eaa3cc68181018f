// Matrix products of a warpgroup of 128 threads (wgmma), asynchronous: fence, products, commit, wait. sm_90a.
//
// D [64, N] float32: warp w of the warpgroup has rows 16 w .. 16 w + 15; lane 4 g + t holds in
//   d[4 j + 0], d[4 j + 1]: row 16 w + g,     columns 8 j + 2 t, 8 j + 2 t + 1
//   d[4 j + 2], d[4 j + 3]: row 16 w + g + 8, the same columns
// A [64, k] from shared memory by descriptor, or from registers: those of mma.cuh's A operand, warp w having
// rows 16 w .. B [N, k] from shared memory. k is 32 bytes: 32 of e4m3, 16 of bfloat16. A and B are k-major.
//
// The accumulator, and A in registers, belong to the product from the call to the wait: read or write
// neither.
#pragma once

#include "cuda/ptx/memory.cuh"
#include "cuda/tensor_map.h"

namespace fdq::ptx {

// The operand whose rows lie in shared memory as TMA with this swizzle writes a box as wide as the swizzle:
// atoms of 8 rows one after the other. `start` is the first row, plus 32 bytes for each step of k within the
// swizzle's width; atoms start at multiples of 8 times the width.
template <cuda::Swizzle S = cuda::Swizzle::k128>
__device__ __forceinline__ uint64_t wgmma_operand(const void* start) {
  static_assert(S != cuda::Swizzle::kNone);
  constexpr uint64_t kMode = S == cuda::Swizzle::k128 ? 1 : S == cuda::Swizzle::k64 ? 2 : 3;
  constexpr uint64_t kAtomBytes = 8 * static_cast<uint64_t>(cuda::swizzle_bytes(S));
  const uint64_t address = shared_address(start);
  return (address & 0x3ffffu) >> 4 | uint64_t{1} << 16 | (kAtomBytes >> 4) << 32 | kMode << 62;
}
// The same operand `bytes` further along k.
__device__ __forceinline__ uint64_t wgmma_advance(uint64_t operand, uint32_t bytes) {
  return operand + (bytes >> 4);
}

// Before the first product and whenever registers of the accumulator or of A were touched since.
__device__ __forceinline__ void wgmma_fence() {
#ifdef FDQ_CUDA_EMULATE
  emu::wgmma_fence();
#else
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#endif
}
__device__ __forceinline__ void wgmma_commit() {
#ifdef FDQ_CUDA_EMULATE
  emu::wgmma_commit();
#else
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#endif
}
// Until at most `Pending` of the newest groups are under way.
template <int Pending>
__device__ __forceinline__ void wgmma_wait() {
#ifdef FDQ_CUDA_EMULATE
  emu::wgmma_wait(Pending);
#else
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(Pending) : "memory");
#endif
}
// Keeps the compiler from moving uses of an accumulator over a fence or a wait.
template <int Count>
__device__ __forceinline__ void wgmma_pin(float (&d)[Count]) {
#ifdef FDQ_CUDA_EMULATE
  (void)d;
#else
#pragma unroll
  for (int i = 0; i < Count; ++i) asm volatile("" : "+f"(d[i])::"memory");
#endif
}

// d = a b^T + (accumulate ? d : 0), for N = 8, 16, 24, 32, 48, 64, 80, 96, 112, 128, 160, 192, 224, 256:
//   Wgmma<N>::e4m3(d, a, b, accumulate)       a, b: wgmma_operand
//   Wgmma<N>::e4m3(d, registers, b, accumulate)
//   Wgmma<N>::bfloat16(...), float16(...)     both forms
template <int N>
struct Wgmma;

#ifdef FDQ_CUDA_EMULATE

template <int N>
struct Wgmma {
  static void e4m3(float (&d)[N / 2], uint64_t a, uint64_t b, bool accumulate) {
    emu::wgmma(emu::MmaKind::kE4M3, N, d, nullptr, a, b, accumulate);
  }
  static void e4m3(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b, bool accumulate) {
    emu::wgmma(emu::MmaKind::kE4M3, N, d, a, 0, b, accumulate);
  }
  static void bfloat16(float (&d)[N / 2], uint64_t a, uint64_t b, bool accumulate) {
    emu::wgmma(emu::MmaKind::kBFloat16, N, d, nullptr, a, b, accumulate);
  }
  static void bfloat16(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b, bool accumulate) {
    emu::wgmma(emu::MmaKind::kBFloat16, N, d, a, 0, b, accumulate);
  }
  static void float16(float (&d)[N / 2], uint64_t a, uint64_t b, bool accumulate) {
    emu::wgmma(emu::MmaKind::kFloat16, N, d, nullptr, a, b, accumulate);
  }
  static void float16(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b, bool accumulate) {
    emu::wgmma(emu::MmaKind::kFloat16, N, d, a, 0, b, accumulate);
  }
};

#else

// Register names of 4 accumulators and their constraints.
#define FDQ_D4(i) "+f"(d[i]), "+f"(d[(i) + 1]), "+f"(d[(i) + 2]), "+f"(d[(i) + 3])
#define FDQ_D8(i) FDQ_D4(i), FDQ_D4((i) + 4)
#define FDQ_D16(i) FDQ_D8(i), FDQ_D8((i) + 8)
#define FDQ_D32(i) FDQ_D16(i), FDQ_D16((i) + 16)
#define FDQ_P4 "%0, %1, %2, %3"
#define FDQ_P8 FDQ_P4 ", %4, %5, %6, %7"
#define FDQ_P12 FDQ_P8 ", %8, %9, %10, %11"
#define FDQ_P16 FDQ_P12 ", %12, %13, %14, %15"
#define FDQ_P24 FDQ_P16 ", %16, %17, %18, %19, %20, %21, %22, %23"
#define FDQ_P32 FDQ_P24 ", %24, %25, %26, %27, %28, %29, %30, %31"
#define FDQ_P40 FDQ_P32 ", %32, %33, %34, %35, %36, %37, %38, %39"
#define FDQ_P48 FDQ_P40 ", %40, %41, %42, %43, %44, %45, %46, %47"
#define FDQ_P56 FDQ_P48 ", %48, %49, %50, %51, %52, %53, %54, %55"
#define FDQ_P64 FDQ_P56 ", %56, %57, %58, %59, %60, %61, %62, %63"
#define FDQ_P72 FDQ_P64 ", %64, %65, %66, %67, %68, %69, %70, %71"
#define FDQ_P80 FDQ_P72 ", %72, %73, %74, %75, %76, %77, %78, %79"
#define FDQ_P88 FDQ_P80 ", %80, %81, %82, %83, %84, %85, %86, %87"
#define FDQ_P96 FDQ_P88 ", %88, %89, %90, %91, %92, %93, %94, %95"
#define FDQ_P104 FDQ_P96 ", %96, %97, %98, %99, %100, %101, %102, %103"
#define FDQ_P112 FDQ_P104 ", %104, %105, %106, %107, %108, %109, %110, %111"
#define FDQ_P120 FDQ_P112 ", %112, %113, %114, %115, %116, %117, %118, %119"
#define FDQ_P128 FDQ_P120 ", %120, %121, %122, %123, %124, %125, %126, %127"

// P0 .. P5: the operands after the accumulators. TAIL: what ends the instruction.
#define FDQ_WGMMA_TEXT(SHAPE, TYPES, REGISTERS, A, B, ACCUMULATE, TAIL)                               \
  "{\n.reg .pred p;\nsetp.ne.b32 p, " ACCUMULATE ", 0;\nwgmma.mma_async.sync.aligned.m64" SHAPE TYPES \
  " {" REGISTERS "}, " A ", " B ", p, 1, 1" TAIL ";\n}\n"

// The constraints of the accumulators come last: they are several arguments.
#define FDQ_WGMMA_FROM_SHARED(NAME, COUNT, SHAPE, TYPES, REGISTERS, TAIL, P0, P1, P2, ...)                  \
  static __device__ __forceinline__ void NAME(float (&d)[COUNT], uint64_t a, uint64_t b, bool accumulate) { \
    asm volatile(FDQ_WGMMA_TEXT(SHAPE, TYPES, REGISTERS, P0, P1, P2, TAIL)                                  \
                 : __VA_ARGS__                                                                              \
                 : "l"(a), "l"(b), "r"(static_cast<int>(accumulate))                                        \
                 : "memory");                                                                               \
  }
#define FDQ_WGMMA_FROM_REGISTERS(NAME, COUNT, SHAPE, TYPES, REGISTERS, TAIL, P0, P1, P2, P3, P4, P5, ...)  \
  static __device__ __forceinline__ void NAME(float (&d)[COUNT], const uint32_t (&a)[4], uint64_t b,       \
                                              bool accumulate) {                                           \
    asm volatile(FDQ_WGMMA_TEXT(SHAPE, TYPES, REGISTERS, "{" P0 ", " P1 ", " P2 ", " P3 "}", P4, P5, TAIL) \
                 : __VA_ARGS__                                                                             \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(accumulate))   \
                 : "memory");                                                                              \
  }
#define FDQ_WGMMA(N, COUNT, REGISTERS, P0, P1, P2, P3, P4, P5, ...)                                          \
  template <>                                                                                                \
  struct Wgmma<N> {                                                                                          \
    FDQ_WGMMA_FROM_SHARED(e4m3, COUNT, "n" #N, "k32.f32.e4m3.e4m3", REGISTERS, "", P0, P1, P2, __VA_ARGS__)  \
    FDQ_WGMMA_FROM_REGISTERS(e4m3, COUNT, "n" #N, "k32.f32.e4m3.e4m3", REGISTERS, "", P0, P1, P2, P3, P4,    \
                             P5, __VA_ARGS__)                                                                \
    FDQ_WGMMA_FROM_SHARED(bfloat16, COUNT, "n" #N, "k16.f32.bf16.bf16", REGISTERS, ", 0, 0", P0, P1, P2,     \
                          __VA_ARGS__)                                                                       \
    FDQ_WGMMA_FROM_REGISTERS(bfloat16, COUNT, "n" #N, "k16.f32.bf16.bf16", REGISTERS, ", 0", P0, P1, P2, P3, \
                             P4, P5, __VA_ARGS__)                                                            \
    FDQ_WGMMA_FROM_SHARED(float16, COUNT, "n" #N, "k16.f32.f16.f16", REGISTERS, ", 0, 0", P0, P1, P2,        \
                          __VA_ARGS__)                                                                       \
    FDQ_WGMMA_FROM_REGISTERS(float16, COUNT, "n" #N, "k16.f32.f16.f16", REGISTERS, ", 0", P0, P1, P2, P3,    \
                             P4, P5, __VA_ARGS__)                                                            \
  };
FDQ_WGMMA(8, 4, FDQ_P4, "%4", "%5", "%6", "%7", "%8", "%9", FDQ_D4(0))
FDQ_WGMMA(16, 8, FDQ_P8, "%8", "%9", "%10", "%11", "%12", "%13", FDQ_D8(0))
FDQ_WGMMA(24, 12, FDQ_P12, "%12", "%13", "%14", "%15", "%16", "%17", FDQ_D8(0), FDQ_D4(8))
FDQ_WGMMA(32, 16, FDQ_P16, "%16", "%17", "%18", "%19", "%20", "%21", FDQ_D16(0))
FDQ_WGMMA(48, 24, FDQ_P24, "%24", "%25", "%26", "%27", "%28", "%29", FDQ_D16(0), FDQ_D8(16))
FDQ_WGMMA(64, 32, FDQ_P32, "%32", "%33", "%34", "%35", "%36", "%37", FDQ_D32(0))
FDQ_WGMMA(80, 40, FDQ_P40, "%40", "%41", "%42", "%43", "%44", "%45", FDQ_D32(0), FDQ_D8(32))
FDQ_WGMMA(96, 48, FDQ_P48, "%48", "%49", "%50", "%51", "%52", "%53", FDQ_D32(0), FDQ_D16(32))
FDQ_WGMMA(112, 56, FDQ_P56, "%56", "%57", "%58", "%59", "%60", "%61", FDQ_D32(0), FDQ_D16(32), FDQ_D8(48))
FDQ_WGMMA(128, 64, FDQ_P64, "%64", "%65", "%66", "%67", "%68", "%69", FDQ_D32(0), FDQ_D32(32))
FDQ_WGMMA(160, 80, FDQ_P80, "%80", "%81", "%82", "%83", "%84", "%85", FDQ_D32(0), FDQ_D32(32), FDQ_D16(64))
FDQ_WGMMA(192, 96, FDQ_P96, "%96", "%97", "%98", "%99", "%100", "%101", FDQ_D32(0), FDQ_D32(32), FDQ_D32(64))
FDQ_WGMMA(224, 112, FDQ_P112, "%112", "%113", "%114", "%115", "%116", "%117", FDQ_D32(0), FDQ_D32(32),
          FDQ_D32(64), FDQ_D16(96))
FDQ_WGMMA(256, 128, FDQ_P128, "%128", "%129", "%130", "%131", "%132", "%133", FDQ_D32(0), FDQ_D32(32),
          FDQ_D32(64), FDQ_D32(96))

#undef FDQ_WGMMA
#undef FDQ_WGMMA_FROM_SHARED
#undef FDQ_WGMMA_FROM_REGISTERS
#undef FDQ_WGMMA_TEXT

#endif

}  // namespace fdq::ptx
