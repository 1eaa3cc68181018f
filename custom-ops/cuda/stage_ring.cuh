// The ring of stages in shared memory between the warp that copies and the warpgroups that multiply.
#pragma once

#include "cuda/ptx/barrier.cuh"
#include "cuda/ptx/memory.cuh"
#include "cuda/ptx/warp.cuh"

namespace fdq::cuda {

// S has kStages, and for x, scales and barriers where the first stage's lie (k..At) and how far apart
// (k..Bytes); the barriers are those of all full stages, then of all empty ones.
template <typename S>
struct StageRing {
  unsigned char* base;
  int at = 0;
  uint32_t phase = 0;

  __device__ __forceinline__ unsigned char* x() const { return base + S::kXAt + at * S::kXBytes; }
  __device__ __forceinline__ float* scales() const {
    return reinterpret_cast<float*>(base + S::kScaleAt + at * S::kScaleBytes);
  }
  __device__ __forceinline__ ptx::Barrier* full() const {
    return reinterpret_cast<ptx::Barrier*>(base + S::kBarrierAt) + at;
  }
  __device__ __forceinline__ ptx::Barrier* empty() const { return full() + S::kStages; }
  __device__ __forceinline__ void advance() {
    if (++at == S::kStages) {
      at = 0;
      phase ^= 1;
    }
  }
  // By one thread, of a fresh ring. `arrivals` empty a stage.
  __device__ __forceinline__ void init(int arrivals) const {
    for (StageRing each = *this; each.phase == 0; each.advance()) {
      ptx::barrier_init(each.full(), 1);
      ptx::barrier_init(each.empty(), static_cast<uint32_t>(arrivals));
    }
    ptx::fence_barrier_init();
  }
  // By each warp, when it has read the stage: lets the block, and the other one of a cluster of two, copy
  // there.
  __device__ __forceinline__ void release(int cluster) const {
    ptx::sync_warp();
    if (ptx::lane() >= cluster) return;
    if (cluster == 1) {
      ptx::barrier_arrive(empty());
    } else {
      ptx::barrier_arrive_cluster(empty(), static_cast<uint32_t>(ptx::lane()));
    }
  }
};

}  // namespace fdq::cuda
