// mbarriers in shared memory: phases that end when `count` threads have arrived and all announced bytes have
// been copied. sm_90.
#pragma once

#include "cuda/ptx/memory.cuh"

namespace fdq::ptx {

using Barrier = uint64_t;

// By one thread; the block (cluster) sees it after fence_barrier_init() and a barrier of its threads.
__device__ __forceinline__ void barrier_init(Barrier* barrier, uint32_t count) {
#ifdef FDQ_CUDA_EMULATE
  emu::barrier_init(barrier, count);
#else
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(count)
               : "memory");
#endif
}
// Before TMA or another block of the cluster uses barriers that this thread initialized.
__device__ __forceinline__ void fence_barrier_init() {
#ifdef FDQ_CUDA_EMULATE
  emu::fence_barrier_init();
#else
  asm volatile("fence.mbarrier_init.release.cluster;\nfence.proxy.async.shared::cta;" ::: "memory");
#endif
}
__device__ __forceinline__ void barrier_arrive(Barrier* barrier) {
#ifdef FDQ_CUDA_EMULATE
  emu::barrier_arrive(barrier, 0);
#else
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
#endif
}
// Arrives and announces `bytes` of copies to this barrier.
__device__ __forceinline__ void barrier_arrive_expect(Barrier* barrier, uint32_t bytes) {
#ifdef FDQ_CUDA_EMULATE
  emu::barrier_arrive(barrier, bytes);
#else
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)),
               "r"(bytes)
               : "memory");
#endif
}
// Arrives at the barrier at the same place in the shared memory of block `rank` of the cluster. It says that
// what this thread read of its own shared memory may be overwritten by a copy; plain stores are not made
// visible to the other block. (With .release.cluster they would be, by a fence of all memory each time.)
__device__ __forceinline__ void barrier_arrive_cluster(Barrier* barrier, uint32_t rank) {
#ifdef FDQ_CUDA_EMULATE
  emu::barrier_arrive_cluster(barrier, rank);
#else
  asm volatile(
      "{\n.reg .b32 remote;\nmapa.shared::cluster.u32 remote, %0, %1;\n"
      "mbarrier.arrive.shared::cluster.b64 _, [remote];\n}\n" ::"r"(shared_address(barrier)),
      "r"(rank)
      : "memory");
#endif
}
// Whether the phase of this parity is over. Phases count from 0, so a fresh barrier answers true to parity 1.
__device__ __forceinline__ bool barrier_try_wait(Barrier* barrier, uint32_t parity) {
#ifdef FDQ_CUDA_EMULATE
  return emu::barrier_try_wait(barrier, parity);
#else
  uint32_t is_over;
  asm volatile(
      "{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.b32 %0, 1, 0, p;\n}\n"
      : "=r"(is_over)
      : "r"(shared_address(barrier)), "r"(parity)
      : "memory");
  return is_over != 0;
#endif
}
__device__ __forceinline__ void barrier_wait(Barrier* barrier, uint32_t parity) {
#ifdef FDQ_CUDA_EMULATE
  emu::barrier_wait(barrier, parity);
#else
  while (!barrier_try_wait(barrier, parity)) {
  }
#endif
}
// Makes what this thread wrote to shared memory by plain stores visible to TMA and wgmma. A barrier of the
// threads follows before another thread starts the copy or the product.
__device__ __forceinline__ void fence_async_shared() {
#ifdef FDQ_CUDA_EMULATE
  emu::fence_async_shared();
#else
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

}  // namespace fdq::ptx
