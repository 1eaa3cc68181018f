#include "fake_state.h"

#include <sys/mman.h>

#include <cstdarg>
#include <cstdio>
#include <cstdlib>

namespace fake_cuda {
namespace {

constexpr size_t kRange = size_t{1} << 40;

CUstream_st* default_stream() {
  static auto* stream = new CUstream_st();
  return stream;
}

}  // namespace

State& state() {
  static State* instance = [] {
    auto* fresh = new State();
    for (Region* region : {&fresh->device, &fresh->pinned}) {
      void* base =
          mmap(nullptr, kRange, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (base == MAP_FAILED) abort();
      region->base = static_cast<char*>(base);
    }
    return fresh;
  }();
  return *instance;
}

__attribute__((format(printf, 1, 2))) void note(const char* format, ...) {
  char line[512];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(line, sizeof line, format, arguments);
  va_end(arguments);
  const Lock lock(state().mutex);
  state().log += line;
  state().log += '\n';
}

void violate(const std::string& what) {
  const Lock lock(state().mutex);
  ++state().stats.violations;
  note("VIOLATION: %s", what.c_str());
}

bool contains(const Region& region, const void* pointer) {
  return pointer >= region.base && pointer < region.base + kRange;
}

bool is_default(cudaStream_t stream) { return reinterpret_cast<uintptr_t>(stream) <= 2; }

CUstream_st* real(cudaStream_t stream) { return is_default(stream) ? default_stream() : stream; }

void forbid_while_capturing(const char* call) {
  const Lock lock(state().mutex);
  if (!state().capturing.empty()) violate(std::string(call) + " while a stream captures");
}

void submit(cudaStream_t stream, std::function<void()> work) {
  CUstream_st* target = real(stream);
  const Lock lock(state().mutex);
  if (target->capturing) {
    target->captured.push_back(std::move(work));
  } else {
    if (is_default(stream)) forbid_while_capturing("work on the default stream");
    work();
  }
}

}  // namespace fake_cuda

using namespace fake_cuda;

extern "C" {

FakeCudaStats fake_cuda_stats() {
  const Lock lock(state().mutex);
  FakeCudaStats stats = state().stats;
  stats.device_bytes = state().device.bytes;
  return stats;
}

void fake_cuda_reset() {
  const Lock lock(state().mutex);
  const uint64_t violations = state().stats.violations;
  state().stats = {};
  state().stats.violations = violations;
  state().log.clear();
}

const char* fake_cuda_log() { return state().log.c_str(); }

FakeCudaMemory fake_cuda_memory_of(const void* pointer) {
  if (contains(state().device, pointer)) return kFakeDevice;
  return contains(state().pinned, pointer) ? kFakePinned : kFakeHost;
}

}  // extern "C"
