// Device memory and pinned memory, both of the host, each in a range of its own; copies at once.
#include <sys/mman.h>

#include <algorithm>
#include <cstring>

#include "fake_state.h"

using namespace fake_cuda;

struct CUmemPoolHandle_st {};

namespace {

constexpr size_t kAlignment = 512;
// New memory is filled, so that what relies on zeros is found.
constexpr size_t kPoisonBytes = size_t{1} << 20;
constexpr unsigned char kPoison = 0xA5;

cudaError_t allocate(Region& region, void** pointer, size_t size, const char* call) {
  const Lock lock(state().mutex);
  forbid_while_capturing(call);
  const size_t rounded = (size + kAlignment - 1) / kAlignment * kAlignment;
  if (region.bytes + rounded > kTotalMemory) return result(cudaErrorMemoryAllocation);
  char* address = region.base + region.used;
  region.used += rounded + kAlignment;
  region.live[address] = size;
  region.bytes += size;
  memset(address, kPoison, std::min(size, kPoisonBytes));
  *pointer = address;
  note("%s %zu -> %p", call, size, *pointer);
  return cudaSuccess;
}

cudaError_t release(Region& region, void* pointer, const char* call) {
  if (pointer == nullptr) return cudaSuccess;
  const Lock lock(state().mutex);
  forbid_while_capturing(call);
  const auto found = region.live.find(static_cast<char*>(pointer));
  if (found == region.live.end()) {
    violate(std::string(call) + " of what was not allocated");
    return result(cudaErrorInvalidValue);
  }
  note("%s %zu at %p", call, found->second, pointer);
  region.bytes -= found->second;
  const auto page = (reinterpret_cast<uintptr_t>(pointer) + 4095) / 4096 * 4096;
  const auto end = (reinterpret_cast<uintptr_t>(pointer) + found->second) / 4096 * 4096;
  if (end > page) madvise(reinterpret_cast<void*>(page), end - page, MADV_DONTNEED);
  region.live.erase(found);
  return cudaSuccess;
}

const char* name_of(const void* pointer) {
  switch (fake_cuda_memory_of(pointer)) {
    case kFakeDevice:
      return "device";
    case kFakePinned:
      return "pinned";
    default:
      return "host";
  }
}

void count_copy(void* target, const void* source, size_t size, const char* call, void* stream) {
  const Lock lock(state().mutex);
  const bool from = contains(state().device, source), to = contains(state().device, target);
  ++state().stats.copies;
  if (from && !to) state().stats.to_host += size;
  if (!from && to) state().stats.to_device += size;
  note("%s %zu %s %p -> %s %p stream %p", call, size, name_of(source), source, name_of(target), target,
       stream);
}

}  // namespace

extern "C" {

cudaError_t cudaMalloc(void** pointer, size_t size) {
  return allocate(state().device, pointer, size, "cudaMalloc");
}
cudaError_t cudaFree(void* pointer) { return release(state().device, pointer, "cudaFree"); }
cudaError_t cudaMallocFromPoolAsync(void** pointer, size_t size, cudaMemPool_t, cudaStream_t) {
  return allocate(state().device, pointer, size, "cudaMallocFromPoolAsync");
}
cudaError_t cudaFreeAsync(void* pointer, cudaStream_t) {
  return release(state().device, pointer, "cudaFreeAsync");
}
cudaError_t cudaMallocHost(void** pointer, size_t size) {
  return allocate(state().pinned, pointer, size, "cudaMallocHost");
}
cudaError_t cudaHostAlloc(void** pointer, size_t size, unsigned) {
  return allocate(state().pinned, pointer, size, "cudaHostAlloc");
}
cudaError_t cudaFreeHost(void* pointer) { return release(state().pinned, pointer, "cudaFreeHost"); }
cudaError_t cudaMemPoolCreate(cudaMemPool_t* pool, const cudaMemPoolProps*) {
  *pool = new CUmemPoolHandle_st();
  return cudaSuccess;
}
cudaError_t cudaMemPoolDestroy(cudaMemPool_t pool) {
  delete pool;
  return cudaSuccess;
}
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* pointer) {
  *attributes = {};
  switch (fake_cuda_memory_of(pointer)) {
    case kFakeDevice:
      attributes->type = cudaMemoryTypeDevice;
      break;
    case kFakePinned:
      attributes->type = cudaMemoryTypeHost;
      break;
    default:
      attributes->type = cudaMemoryTypeUnregistered;
  }
  return cudaSuccess;
}
cudaError_t cudaMemcpy(void* target, const void* source, size_t size, cudaMemcpyKind) {
  count_copy(target, source, size, "cudaMemcpy", nullptr);
  forbid_while_capturing("cudaMemcpy");
  memcpy(target, source, size);
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* target, const void* source, size_t size, cudaMemcpyKind,
                            cudaStream_t stream) {
  count_copy(target, source, size, "cudaMemcpyAsync", stream);
  submit(stream, [=] { memcpy(target, source, size); });
  return cudaSuccess;
}
cudaError_t cudaMemset(void* target, int value, size_t size) {
  note("cudaMemset %zu at %p", size, target);
  forbid_while_capturing("cudaMemset");
  memset(target, value, size);
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* target, int value, size_t size, cudaStream_t stream) {
  note("cudaMemsetAsync %zu at %p stream %p", size, target, static_cast<void*>(stream));
  submit(stream, [=] { memset(target, value, size); });
  return cudaSuccess;
}

}  // extern "C"
