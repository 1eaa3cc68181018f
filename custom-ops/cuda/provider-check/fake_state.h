// What the files of the fake CUDA runtime share.
#pragma once

#include <cuda_runtime_api.h>

#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "fake_cuda.h"

static_assert(CUDART_VERSION >= 13000 && CUDART_VERSION < 14000, "the provider is built for CUDA 13");

// The type behind cudaStream_t.
struct CUstream_st {
  bool capturing = false;
  std::vector<std::function<void()>> captured;
};

namespace fake_cuda {

constexpr size_t kTotalMemory = size_t{80} << 30;

// A range of addresses that is given out once, so that an address tells what memory it is of.
struct Region {
  char* base = nullptr;
  size_t used = 0;
  std::map<char*, size_t> live;
  uint64_t bytes = 0;
};

struct State {
  std::recursive_mutex mutex;  // guards the rest
  Region device, pinned;
  FakeCudaStats stats{};
  std::string log;
  std::map<const void*, std::string> kernels;  // names by the address of the host's stub
  std::set<CUstream_st*> capturing;
};

State& state();
using Lock = std::lock_guard<std::recursive_mutex>;

__attribute__((format(printf, 1, 2))) void note(const char* format, ...);
void violate(const std::string& what);
// Remembers an error for cudaGetLastError.
cudaError_t result(cudaError_t error);
bool contains(const Region& region, const void* pointer);
// The stream behind a handle, which may be one of the names of the default stream.
CUstream_st* real(cudaStream_t stream);
bool is_default(cudaStream_t stream);
void forbid_while_capturing(const char* call);
// Does the work, or keeps it for the graph that the stream captures.
void submit(cudaStream_t stream, std::function<void()> work);

}  // namespace fake_cuda
