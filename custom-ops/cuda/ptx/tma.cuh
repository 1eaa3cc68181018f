// Copies by the tensor memory accelerator. One thread issues each. sm_90.
#pragma once

#include "cuda/ptx/barrier.cuh"
#include "cuda/tensor_map.h"

namespace fdq::ptx {

// Cache policies of createpolicy.fractional with fraction 1, as the driver encodes them.
constexpr uint64_t kEvictNormal = 0x1000000000000000ull;
constexpr uint64_t kEvictFirst = 0x12f0000000000000ull;
constexpr uint64_t kEvictLast = 0x14f0000000000000ull;

__device__ __forceinline__ void tma_prefetch_map(const cuda::TensorMap* map) {
#ifdef FDQ_CUDA_EMULATE
  (void)map;
#else
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
#endif
}

// The box whose first element is (row, column) to `shared`; its bytes, the ones out of range included, count
// on the barrier. With a swizzle `shared` is a multiple of 1024 (k128), 512 (k64) or 256 (k32).
__device__ __forceinline__ void tma_load(void* shared, const cuda::TensorMap* map, Barrier* barrier, int row,
                                         int column, uint64_t policy = kEvictNormal) {
#ifdef FDQ_CUDA_EMULATE
  (void)policy;
  emu::tma_load(shared, map, barrier, row, column, 0);
#else
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint"
      " [%0], [%1, {%3, %4}], [%2], %5;" ::"r"(shared_address(shared)),
      "l"(map), "r"(shared_address(barrier)), "r"(column), "r"(row), "l"(policy)
      : "memory");
#endif
}
// The same to every block of the cluster whose bit is set in `blocks`, at the same places of their shared
// memory, barrier included.
__device__ __forceinline__ void tma_load_multicast(void* shared, const cuda::TensorMap* map, Barrier* barrier,
                                                   int row, int column, uint16_t blocks,
                                                   uint64_t policy = kEvictNormal) {
#ifdef FDQ_CUDA_EMULATE
  (void)policy;
  emu::tma_load(shared, map, barrier, row, column, blocks);
#else
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster"
      ".L2::cache_hint [%0], [%1, {%3, %4}], [%2], %5, %6;" ::"r"(shared_address(shared)),
      "l"(map), "r"(shared_address(barrier)), "r"(column), "r"(row), "h"(blocks), "l"(policy)
      : "memory");
#endif
}
// `bytes` consecutive bytes; bytes and both addresses are multiples of 16.
__device__ __forceinline__ void bulk_load(void* shared, const void* global, uint32_t bytes, Barrier* barrier,
                                          uint64_t policy = kEvictNormal) {
#ifdef FDQ_CUDA_EMULATE
  (void)policy;
  emu::bulk_load(shared, global, bytes, barrier);
#else
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint"
      " [%0], [%1], %2, [%3], %4;" ::"r"(shared_address(shared)),
      "l"(global), "r"(bytes), "r"(shared_address(barrier)), "l"(policy)
      : "memory");
#endif
}

// The box at `shared` to (row, column); what lies outside the matrix is dropped. Writers of the box call
// fence_async_shared() first. The same thread commits and waits.
__device__ __forceinline__ void tma_store(const cuda::TensorMap* map, const void* shared, int row,
                                          int column) {
#ifdef FDQ_CUDA_EMULATE
  emu::tma_store(map, shared, row, column);
#else
  asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%2, %3}], [%1];" ::"l"(map),
               "r"(shared_address(shared)), "r"(column), "r"(row)
               : "memory");
#endif
}
__device__ __forceinline__ void tma_store_commit() {
#ifdef FDQ_CUDA_EMULATE
  emu::tma_store_commit();
#else
  asm volatile("cp.async.bulk.commit_group;" ::: "memory");
#endif
}
// Until at most `Pending` groups still read shared memory.
template <int Pending>
__device__ __forceinline__ void tma_store_wait_read() {
#ifdef FDQ_CUDA_EMULATE
  emu::tma_store_wait(Pending);
#else
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(Pending) : "memory");
#endif
}
// Until at most `Pending` groups are unfinished.
template <int Pending>
__device__ __forceinline__ void tma_store_wait() {
#ifdef FDQ_CUDA_EMULATE
  emu::tma_store_wait(Pending);
#else
  asm volatile("cp.async.bulk.wait_group %0;" ::"n"(Pending) : "memory");
#endif
}

}  // namespace fdq::ptx
