// What every kernel file includes first: CUDA, or its emulation on the host (FDQ_CUDA_EMULATE), and
// launching.
//
// Rules that keep a kernel runnable in both: shared memory is dynamic and only reached from shared_memory();
// threads talk to each other through ptx/*.cuh; a launch goes through launch().
#pragma once

#include <cstdint>
#include <cstring>
#include <utility>

#ifdef FDQ_CUDA_EMULATE
#include "cuda/emulator/emulator.h"
#else
#include <cuda_runtime.h>
#endif

#include "fdq/cuda.h"

namespace fdq::cuda {

struct LaunchShape {
  dim3 grid, block;
  int64_t shared_bytes = 0;
  unsigned cluster = 1;  // blocks along x that share a cluster; divides grid.x
};

#ifdef FDQ_CUDA_EMULATE

// Runs the kernel to its end. A fault of the kernel (see emulator.h) ends the process with a report.
template <typename... Parameters, typename... Arguments>
Error launch(void (*kernel)(Parameters...), const LaunchShape& shape, void* /*stream*/,
             Arguments&&... arguments) {
  emu::run_grid({shape.grid, shape.block, shape.shared_bytes, shape.cluster},
                [&] { kernel(static_cast<Parameters>(arguments)...); });
  return nullptr;
}

#else

inline Error error_text(cudaError_t status) {
  if (status == cudaSuccess) return nullptr;
  cudaGetLastError();  // or whoever asks next, ONNX Runtime after a launch of its own, takes it for theirs
  return cudaGetErrorString(status);
}

template <typename... Parameters, typename... Arguments>
Error launch(void (*kernel)(Parameters...), const LaunchShape& shape, void* stream,
             Arguments&&... arguments) {
  constexpr int64_t kDefaultSharedBytes = 48 * 1024;
  if (shape.shared_bytes > kDefaultSharedBytes) {
    const cudaError_t status = cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                                    cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                    static_cast<int>(shape.shared_bytes));
    if (status != cudaSuccess) return error_text(status);
  }
  cudaLaunchAttribute attribute;
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim.x = shape.cluster;
  attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = shape.grid;
  config.blockDim = shape.block;
  config.dynamicSmemBytes = static_cast<size_t>(shape.shared_bytes);
  config.stream = static_cast<cudaStream_t>(stream);
  config.attrs = &attribute;
  config.numAttrs = shape.cluster > 1 ? 1 : 0;
  return error_text(cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...));
}

// The dynamic shared memory of the block, aligned to 1024 bytes (an atom of the 128-byte swizzle).
__device__ __forceinline__ unsigned char* shared_memory() {
  extern __shared__ __align__(1024) unsigned char fdq_shared_memory[];
  return fdq_shared_memory;
}

#endif

inline bool fits(const WorkspaceSize& needed, const WorkspaceSize& size) {
  return needed.counters <= size.counters && needed.partials <= size.partials;
}

// Bits of one type as another of the same size.
template <typename To, typename From>
__device__ __forceinline__ To bit_cast(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}

}  // namespace fdq::cuda
