// Loads and stores: 16 bytes at a time, with cache hints; cp.async; ldmatrix; atomics for reductions between
// blocks.
#pragma once

#include "cuda/device.cuh"

namespace fdq::ptx {

// Where `pointer`, into shared memory, lies for instructions that take a shared address.
__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
#ifdef FDQ_CUDA_EMULATE
  return emu::shared_address(pointer);
#else
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
#endif
}

struct alignas(16) Quad {
  uint32_t word[4];
};

// 16 aligned bytes that no one writes during the kernel. kStream: read once, evict first (weights); kKeep:
// read by many blocks (activations).
enum class Reuse { kStream, kKeep };

template <Reuse R = Reuse::kKeep>
__device__ __forceinline__ Quad load_quad(const void* global) {
#ifdef FDQ_CUDA_EMULATE
  emu::check_aligned("load_quad", global, 16);
  return *static_cast<const Quad*>(global);
#else
  Quad q;
  if constexpr (R == Reuse::kStream) {
    uint64_t policy;
    asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
    asm volatile("ld.global.nc.L1::no_allocate.L2::cache_hint.v4.u32 {%0, %1, %2, %3}, [%4], %5;"
                 : "=r"(q.word[0]), "=r"(q.word[1]), "=r"(q.word[2]), "=r"(q.word[3])
                 : "l"(global), "l"(policy));
  } else {
    asm volatile("ld.global.nc.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(q.word[0]), "=r"(q.word[1]), "=r"(q.word[2]), "=r"(q.word[3])
                 : "l"(global));
  }
  return q;
#endif
}
__device__ __forceinline__ void store_quad(void* global, const Quad& q) {
#ifdef FDQ_CUDA_EMULATE
  emu::check_aligned("store_quad", global, 16);
#endif
  *static_cast<Quad*>(global) = q;
}
// 8 aligned bytes.
__device__ __forceinline__ void store_pair(void* global, uint32_t first, uint32_t second) {
#ifdef FDQ_CUDA_EMULATE
  emu::check_aligned("store_pair", global, 8);
#endif
  struct alignas(8) Pair {
    uint32_t first, second;
  };
  *static_cast<Pair*>(global) = {first, second};
}

// Brings the line of `global` to L2.
__device__ __forceinline__ void prefetch_l2(const void* global) {
#ifdef FDQ_CUDA_EMULATE
  (void)global;
#else
  asm volatile("prefetch.global.L2 [%0];" ::"l"(global));
#endif
}

// 16 bytes from global to shared memory, asynchronously; only the first `bytes` (0 .. 16) are read, the rest
// is written as 0. Both addresses are 16-byte aligned. Visible to the thread after cp_async_wait, to others
// after a barrier behind it.
__device__ __forceinline__ void cp_async_16(void* shared, const void* global, int bytes = 16) {
#ifdef FDQ_CUDA_EMULATE
  emu::cp_async(shared, global, bytes);
#else
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global),
               "r"(bytes)
               : "memory");
#endif
}
__device__ __forceinline__ void cp_async_commit() {
#ifdef FDQ_CUDA_EMULATE
  emu::cp_async_commit();
#else
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
// Until at most `Pending` of the thread's newest groups are under way.
template <int Pending>
__device__ __forceinline__ void cp_async_wait() {
#ifdef FDQ_CUDA_EMULATE
  emu::cp_async_wait(Pending);
#else
  asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
#endif
}

// Four 8x8 matrices of 2-byte elements (or 8x16 of bytes); lane i names row i % 8 of matrix i / 8, 16 aligned
// bytes of shared memory. Lane 4 g + t gets of each matrix bytes 4 t .. 4 t + 3 of row g.
__device__ __forceinline__ void load_matrix_x4(uint32_t (&out)[4], const void* shared_row) {
#ifdef FDQ_CUDA_EMULATE
  emu::load_matrix(out, shared_row, 4);
#else
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(shared_address(shared_row))
               : "memory");
#endif
}
// Two matrices, whose rows lanes 0 .. 15 name; the other lanes pass any valid row.
__device__ __forceinline__ void load_matrix_x2(uint32_t (&out)[2], const void* shared_row) {
#ifdef FDQ_CUDA_EMULATE
  uint32_t four[4];
  emu::load_matrix(four, shared_row, 2);
  out[0] = four[0];
  out[1] = four[1];
#else
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
               : "=r"(out[0]), "=r"(out[1])
               : "r"(shared_address(shared_row))
               : "memory");
#endif
}

// Where byte `offset` of a box with the 128-byte swizzle lies in shared memory: bits 4 .. 6 are xored with
// bits 7 .. 9. The box starts at a multiple of 1024.
__host__ __device__ __forceinline__ uint32_t swizzle_128(uint32_t offset) {
  return offset ^ (offset >> 3 & 0x70u);
}

// Counts blocks that are done: release what the thread wrote, acquire what others released. Returns the count
// before.
__device__ __forceinline__ uint32_t atomic_add_acq_rel(uint32_t* global, uint32_t value) {
#ifdef FDQ_CUDA_EMULATE
  return emu::atomic_add(global, value);
#else
  uint32_t before;
  asm volatile("atom.add.acq_rel.gpu.global.u32 %0, [%1], %2;"
               : "=r"(before)
               : "l"(global), "r"(value)
               : "memory");
  return before;
#endif
}
__device__ __forceinline__ uint32_t load_acquire(const uint32_t* global) {
#ifdef FDQ_CUDA_EMULATE
  return emu::load_acquire(global);
#else
  uint32_t value;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(global) : "memory");
  return value;
#endif
}
__device__ __forceinline__ void atomic_max(uint32_t* global, uint32_t value) {
#ifdef FDQ_CUDA_EMULATE
  if (value > *global) *global = value;
#else
  atomicMax(global, value);
#endif
}
__device__ __forceinline__ void atomic_min(uint64_t* global, uint64_t value) {
#ifdef FDQ_CUDA_EMULATE
  if (value < *global) *global = value;
#else
  static_assert(sizeof(unsigned long long) == sizeof(uint64_t));
  atomicMin(reinterpret_cast<unsigned long long*>(global), static_cast<unsigned long long>(value));
#endif
}
__device__ __forceinline__ void atomic_add(float* global, float value) {
#ifdef FDQ_CUDA_EMULATE
  *global += value;
#else
  atomicAdd(global, value);
#endif
}

}  // namespace fdq::ptx
