// Threads among themselves: lanes of a warp, named barriers, clusters, registers.
#pragma once

#include "cuda/device.cuh"

namespace fdq::ptx {

constexpr int kWarp = 32;
constexpr int kWarpgroup = 128;
constexpr unsigned kAllLanes = 0xffffffffu;

__device__ __forceinline__ int lane() { return static_cast<int>(threadIdx.x) % kWarp; }
// Of a one-dimensional block, the same value in all lanes so that branches on it are uniform.
__device__ __forceinline__ int warp();

// All lanes of the warp take part in each of these.
__device__ __forceinline__ uint32_t shuffle(uint32_t value, int source) {
#ifdef FDQ_CUDA_EMULATE
  return emu::warp_exchange("shuffle", value)[source & 31];
#else
  return __shfl_sync(kAllLanes, value, source);
#endif
}
__device__ __forceinline__ uint32_t shuffle_xor(uint32_t value, int mask) {
#ifdef FDQ_CUDA_EMULATE
  return emu::warp_exchange("shuffle_xor", value)[lane() ^ mask];
#else
  return __shfl_xor_sync(kAllLanes, value, mask);
#endif
}
__device__ __forceinline__ float shuffle(float value, int source) {
  return cuda::bit_cast<float>(shuffle(cuda::bit_cast<uint32_t>(value), source));
}
__device__ __forceinline__ float shuffle_xor(float value, int mask) {
  return cuda::bit_cast<float>(shuffle_xor(cuda::bit_cast<uint32_t>(value), mask));
}
__device__ __forceinline__ uint32_t ballot(bool predicate) {
#ifdef FDQ_CUDA_EMULATE
  const auto values = emu::warp_exchange("ballot", predicate ? 1u : 0u);
  uint32_t bits = 0;
  for (int i = 0; i < kWarp; ++i) bits |= values[i] << i;
  return bits;
#else
  return __ballot_sync(kAllLanes, predicate);
#endif
}
__device__ __forceinline__ void sync_warp() {
#ifdef FDQ_CUDA_EMULATE
  emu::warp_exchange("sync_warp", 0u);
#else
  __syncwarp();
#endif
}

__device__ __forceinline__ int warp() {
  return static_cast<int>(shuffle(static_cast<uint32_t>(threadIdx.x) / kWarp, 0));
}

// Over groups of `Width` neighbouring lanes; every lane gets the result.
template <int Width = kWarp>
__device__ __forceinline__ float reduce_sum(float value) {
#pragma unroll
  for (int step = Width / 2; step > 0; step /= 2) value += shuffle_xor(value, step);
  return value;
}
template <int Width = kWarp>
__device__ __forceinline__ uint32_t reduce_max(uint32_t value) {
#pragma unroll
  for (int step = Width / 2; step > 0; step /= 2) {
    const uint32_t other = shuffle_xor(value, step);
    value = other > value ? other : value;
  }
  return value;
}

// One lane of the warp, the same one each time. Take it inside a branch that is uniform in the warp.
__device__ __forceinline__ bool elect() {
#ifdef FDQ_CUDA_EMULATE
  emu::warp_exchange("elect", 0u);
  return lane() == 0;
#elif __CUDA_ARCH__ >= 900
  uint32_t is_elected;
  asm volatile("{\n.reg .pred p;\nelect.sync _|p, 0xffffffff;\nselp.b32 %0, 1, 0, p;\n}\n"
               : "=r"(is_elected));
  return is_elected != 0;
#else
  return lane() == 0;
#endif
}

__device__ __forceinline__ void sync_block() {
#ifdef FDQ_CUDA_EMULATE
  emu::block_barrier(0, emu::block_threads(), true);
#else
  __syncthreads();
#endif
}

// Barrier 1 .. 15 of the block over `threads` of its threads, a multiple of 32. arrive does not wait.
__device__ __forceinline__ void named_barrier_sync(int barrier, int threads) {
#ifdef FDQ_CUDA_EMULATE
  emu::block_barrier(barrier, threads, true);
#else
  asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
#endif
}
__device__ __forceinline__ void named_barrier_arrive(int barrier, int threads) {
#ifdef FDQ_CUDA_EMULATE
  emu::block_barrier(barrier, threads, false);
#else
  asm volatile("bar.arrive %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
#endif
}

// Moves registers between warpgroups; all warps of the warpgroup call it. Count is a multiple of 8 in
// 24 .. 256.
template <int Count>
__device__ __forceinline__ void set_max_registers_down() {
#ifdef FDQ_CUDA_EMULATE
  emu::set_max_registers(Count);
#else
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(Count));
#endif
}
template <int Count>
__device__ __forceinline__ void set_max_registers_up() {
#ifdef FDQ_CUDA_EMULATE
  emu::set_max_registers(Count);
#else
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(Count));
#endif
}

__device__ __forceinline__ uint32_t cluster_rank() {
#ifdef FDQ_CUDA_EMULATE
  return emu::cluster_rank();
#else
  uint32_t rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
#endif
}
__device__ __forceinline__ void sync_cluster() {
#ifdef FDQ_CUDA_EMULATE
  emu::cluster_barrier();
#else
  asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
}

}  // namespace fdq::ptx
